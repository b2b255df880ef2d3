// Names of the measurements in the reader's language.
import { t, type Key } from "../../i18n";
import type { ColumnKey } from "./measures";

export function measureName(key: ColumnKey): string {
  return t(`measure.${key}` as Key);
}
