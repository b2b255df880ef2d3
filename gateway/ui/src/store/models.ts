// The models that can be chosen; read once and again when asked.
import { signal } from "@preact/signals";
import * as api from "../api/endpoints";
import type { Model } from "../api/types";

export const modelList = signal<readonly Model[] | null>(null);
export const modelProblem = signal<unknown>(null);

export async function readModels(): Promise<void> {
  try {
    modelList.value = (await api.models.list()).items;
    modelProblem.value = null;
  } catch (error) {
    modelProblem.value = error;
  }
}

export function modelTitle(name: string): string {
  return modelList.value?.find((model) => model.name === name)?.title ?? name;
}
