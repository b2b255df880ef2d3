// Build of the browser interface. UI_OUT names another output folder; UI_API another server for `vite dev`.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const outDir = resolve(process.env["UI_OUT"] ?? "../../build/ui");
const api = process.env["UI_API"] ?? "https://127.0.0.1:8443";

/** Writes NAME.gz next to each text file, so that the gateway never compresses at run time. */
function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    async closeBundle() {
      const entries = await readdir(outDir, { recursive: true, withFileTypes: true });
      for (const entry of entries) {
        if (!entry.isFile() || !/\.(js|css|html|svg|json|txt)$/.test(entry.name)) continue;
        const path = join(entry.parentPath ?? entry.path, entry.name);
        const data = await readFile(path);
        if (data.length > 512) await writeFile(`${path}.gz`, gzipSync(data, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  base: "/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    outDir,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { port: 5173, proxy: { "/api": { target: api, secure: false, changeOrigin: true, ws: true } } },
  plugins: [precompress()],
});
