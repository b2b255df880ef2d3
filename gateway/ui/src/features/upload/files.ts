// Finds the files in what was dropped: files, folders, folders in folders.

export interface FoundFile {
  file: File;
  /** Path inside the dropped folder, or the bare name. */
  path: string;
}

const MAX_FILES = 20_000;

/** Files that systems leave in folders and nobody wants to upload. */
export function isClutter(name: string): boolean {
  return name.startsWith(".") || /^(thumbs\.db|desktop\.ini)$/i.test(name);
}

function readEntries(reader: FileSystemDirectoryReader): Promise<FileSystemEntry[]> {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}

function entryFile(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

export async function filesOfDrop(transfer: DataTransfer): Promise<FoundFile[]> {
  // The entries must be taken before the first await: the transfer is emptied after the event.
  const queue: FileSystemEntry[] = [];
  for (const item of transfer.items) {
    const entry = item.kind === "file" ? item.webkitGetAsEntry() : null;
    if (entry) queue.push(entry);
  }
  if (queue.length === 0) return filesOfList(transfer.files);
  const found: FoundFile[] = [];
  for (let at = 0; at < queue.length && found.length < MAX_FILES; at++) {
    const entry = queue[at] as FileSystemEntry;
    if (isClutter(entry.name)) continue;
    if (entry.isFile) {
      const file = await entryFile(entry as FileSystemFileEntry).catch(() => null);
      if (file) found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    } else {
      const reader = (entry as FileSystemDirectoryEntry).createReader();
      for (;;) {
        const some = await readEntries(reader).catch(() => []);
        if (some.length === 0) break;
        queue.push(...some);
      }
    }
  }
  return found;
}

export function filesOfList(list: FileList | readonly File[]): FoundFile[] {
  const found: FoundFile[] = [];
  for (const file of list) {
    if (isClutter(file.name) || found.length >= MAX_FILES) continue;
    const path = (file as File & { webkitRelativePath?: string }).webkitRelativePath;
    found.push({ file, path: path || file.name });
  }
  return found;
}

export function carriesFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes("Files") ?? false;
}
