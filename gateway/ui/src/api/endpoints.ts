// One function for each route of proto/openapi.yaml that the interface calls.
import { newKey, request, requestJson, requestNothing } from "./http";
import type {
  Image, Job, Model, Page, PolygonPage, Project, QueueStatus, Segmentation, SegmentRequest, Session, TileInfo,
} from "./types";

const post = "POST";

export const auth = {
  login: (email: string, password: string) =>
    requestJson<Session>("/api/auth/login", { method: post, json: { email, password } }),
  register: (email: string, password: string, displayName: string) =>
    requestJson<Session>("/api/auth/register", {
      method: post,
      json: displayName ? { email, password, displayName } : { email, password },
    }),
  logout: () => requestNothing("/api/auth/logout", { method: post }),
};

export interface ProjectEdit {
  title?: string;
  description?: string;
  defaultModel?: string | null;
  defaultThreshold?: number | null;
  detectHoles?: boolean;
}

export const projects = {
  list: (after: string | null) =>
    requestJson<Page<Project>>(`/api/projects?limit=200${after ? `&after=${encodeURIComponent(after)}` : ""}`),
  get: (id: string) => requestJson<Project>(`/api/projects/${id}`),
  create: (title: string, defaultModel: string | null) =>
    requestJson<Project>("/api/projects", { method: post, json: { title, ...(defaultModel ? { defaultModel } : {}) }, headers: { "Idempotency-Key": newKey() } }),
  sample: () => requestJson<Project>("/api/projects/sample", { method: post }),
  async update(id: string, edit: ProjectEdit): Promise<Project> {
    const current = await request(`/api/projects/${id}`);
    const etag = current.headers.get("ETag") ?? "*";
    return requestJson<Project>(`/api/projects/${id}`, { method: "PATCH", json: edit, headers: { "If-Match": etag } });
  },
  remove: (id: string) => requestNothing(`/api/projects/${id}`, { method: "DELETE" }),
};

export const images = {
  list: (projectId: string, after: string | null, limit = 500, signal?: AbortSignal) =>
    requestJson<Page<Image>>(
      `/api/projects/${projectId}/images?limit=${limit}${after ? `&after=${encodeURIComponent(after)}` : ""}`,
      signal ? { signal } : {},
    ),
  get: (id: string) => requestJson<Image>(`/api/images/${id}`),
  remove: (id: string) => requestNothing(`/api/images/${id}`, { method: "DELETE" }),
  tiles: (id: string) => requestJson<TileInfo>(`/api/images/${id}/tiles`),
  segmentation: (id: string) => requestJson<Segmentation>(`/api/images/${id}/segmentation`),
  segment: (id: string, options: SegmentRequest) =>
    requestJson<{ jobId: string }>(`/api/images/${id}/segmentation`, {
      method: post, json: options, headers: { "Idempotency-Key": newKey() },
    }),
  thumbnailUrl: (id: string) => `/api/images/${id}/thumbnail`,
  originalUrl: (id: string) => `/api/images/${id}/original`,
  tileUrl: (id: string, level: number, x: number, y: number) => `/api/images/${id}/tiles/${level}/${x}/${y}`,
  /** One page of outlines in the binary form, and where the next begins. */
  async outlines(
    id: string, after: number | null, limit: number, signal?: AbortSignal,
  ): Promise<{ data: ArrayBuffer; next: number | null }> {
    const query = `format=binary&measurements=false&limit=${limit}${after === null ? "" : `&after=${after}`}`;
    const response = await request(`/api/images/${id}/polygons?${query}`, signal ? { signal } : {});
    const next = response.headers.get("X-Next-After");
    return { data: await response.arrayBuffer(), next: next !== null && /^\d+$/.test(next) ? Number(next) : null };
  },
  features: (id: string, after: number | null, limit: number, signal?: AbortSignal) =>
    requestJson<PolygonPage>(
      `/api/images/${id}/polygons?limit=${limit}${after === null ? "" : `&after=${after}`}`, signal ? { signal } : {},
    ),
};

export const segmentation = {
  batch: (projectId: string, options: SegmentRequest & { imageIds?: string[]; all?: boolean; onlyMissing?: boolean }) =>
    requestJson<{ batchId: string; accepted: number; alreadyQueued: number }>(
      `/api/projects/${projectId}/segmentation`,
      { method: post, json: options, headers: { "Idempotency-Key": newKey() } },
    ),
  cancelAll: (projectId: string) =>
    requestJson<{ cancelled: number }>(`/api/projects/${projectId}/segmentation/cancel`, { method: post }),
  retryFailed: (projectId: string) =>
    requestJson<{ retried: number }>(`/api/projects/${projectId}/segmentation/retry-failed`, { method: post }),
  jobs: (state: string, limit: number, projectId?: string, after?: string | null) =>
    requestJson<Page<Job>>(
      `/api/segmentation/jobs?state=${state}&limit=${limit}${projectId ? `&projectId=${projectId}` : ""}` +
        (after ? `&after=${encodeURIComponent(after)}` : ""),
    ),
  job: (jobId: string) => requestJson<Job>(`/api/segmentation/job/${jobId}`),
  cancel: (jobId: string) => requestJson<Job>(`/api/segmentation/job/${jobId}`, { method: "DELETE" }),
  /** Outlines of what is finished of a running job: those after part `after` of the preview `of`. */
  async preview(
    jobId: string, of: string | null, after: number, signal?: AbortSignal,
  ): Promise<{ of: string | null; next: number | null; data: ArrayBuffer }> {
    const query = of === null ? "" : `?of=${encodeURIComponent(of)}&after=${after}`;
    const response = await request(`/api/segmentation/job/${jobId}/preview${query}`, signal ? { signal } : {});
    const next = response.headers.get("X-Next-After");
    return {
      of: response.headers.get("X-Preview"), next: next !== null && /^\d+$/.test(next) ? Number(next) : null,
      data: await response.arrayBuffer(),
    };
  },
  retry: (jobId: string) => requestJson<Job>(`/api/segmentation/job/${jobId}/retry`, { method: post }),
  queue: () => requestJson<QueueStatus>("/api/segmentation/queue/status"),
};

export const models = {
  list: () => requestJson<{ items: Model[] }>("/api/models"),
};
