// The shapes of proto/openapi.yaml and proto/events.md that the interface uses.

export type JobState = "queued" | "active" | "delayed" | "completed" | "failed" | "cancelled";
/** State of an image in the gallery: its latest job's, or "none". */
export type ImageState = JobState | "none";

export interface User {
  id: string;
  email: string;
  displayName: string;
  role: "user" | "admin";
  createdAt: string;
}

export interface Session {
  accessToken: string;
  expiresIn: number;
  user: User;
}

export interface JobCounts {
  none: number;
  queued: number;
  active: number;
  completed: number;
  failed: number;
  cancelled: number;
}

export interface Project {
  id: string;
  title: string;
  description: string;
  defaultModel: string | null;
  defaultThreshold: number | null;
  detectHoles: boolean;
  isSample: boolean;
  imageCount: number;
  coverImageId: string | null;
  jobs: JobCounts;
  version: number;
  createdAt: string;
  updatedAt: string;
}

export interface JobError {
  code: string;
  message: string;
}

export interface Job {
  id: string;
  projectId: string;
  imageId: string;
  imageName?: string;
  state: JobState;
  seq: number;
  stage: string;
  progress: number;
  priority: number;
  model: string;
  threshold?: number | null;
  detectHoles?: boolean;
  options?: JobOptions;
  attempt: number;
  maxAttempts: number;
  position: number | null;
  error: JobError | null;
  objectCount: number | null;
  createdAt: string;
  startedAt: string | null;
  finishedAt: string | null;
}

export interface Image {
  id: string;
  projectId: string;
  name: string;
  format: string;
  byteSize: number;
  width: number;
  height: number;
  bitDepth: number;
  channels: number;
  pages: number;
  planes: { channels: number; slices: number; times: number } | null;
  pixelSizeUm: number | null;
  objectCount: number | null;
  job: Job | null;
  createdAt: string;
}

export interface Page<T> {
  items: T[];
  nextAfter: string | null;
  total?: number;
}

export type Augment = "none" | "flips" | "rotations";

/** Everything counts from 1; what is absent is as the model says. */
export interface JobOptions {
  minArea?: number;
  maxArea?: number;
  maxHoleArea?: number;
  augment?: Augment;
  page?: number;
  channel?: number;
  mix?: number[];
  z?: number;
  time?: number;
}

export interface SegmentRequest {
  priority?: number;
  model?: string;
  threshold?: number;
  detectHoles?: boolean;
  options?: JobOptions;
}

export interface Segmentation {
  id: string;
  imageId: string;
  jobId: string;
  model: string;
  modelVersion: string;
  threshold: number;
  detectHoles: boolean;
  options: JobOptions;
  width: number;
  height: number;
  objectCount: number;
  note: string;
  createdAt: string;
}

export interface PolygonFeature {
  type: "Feature";
  id: number;
  geometry: { type: "Polygon" | "MultiPolygon"; coordinates: unknown };
  properties: { idx: number; confidence: number; measurements?: Record<string, number | null> };
}

export interface PolygonPage {
  type: "FeatureCollection";
  segmentationId: string;
  total: number;
  nextAfter: number | null;
  features: PolygonFeature[];
}

export interface TileInfo {
  width: number;
  height: number;
  tileSize: number;
  maxLevel: number;
}

export interface WorkerInfo {
  id: string;
  host: string;
  device: string;
  models: string[];
  slots: number;
  active: number;
  startedAt?: string;
  seenAt: string;
}

export interface QueueStatus {
  waiting: number;
  active: number;
  delayed: number;
  completed: number;
  failed: number;
  cancelled: number;
  oldestWaitingSeconds: number;
  byModel: { model: string; waiting: number; active: number; byPriority: Record<string, number> }[];
  workers: WorkerInfo[];
  breaker: { model: string; state: "closed" | "open" | "half_open"; errorRate?: number }[];
}

export interface Model {
  name: string;
  version: string;
  title: string;
  description: string;
  threshold: number;
  sha256?: string;
  scores?: Record<string, unknown>;
  options?: { minArea: number; maxHoleArea: number; augment: Augment; augments: Augment[] };
  available?: boolean;
}

export interface JobEvent {
  type: "job";
  projectId: string;
  imageId: string;
  jobId: string;
  seq: number;
  state: JobState;
  stage: string;
  progress: number;
  attempt: number;
  position?: number | null;
  objectCount?: number | null;
  error?: JobError | null;
}

export type ServerMessage =
  | JobEvent
  | { type: "snapshot"; projectId: string; jobs: Job[]; imageCount: number }
  | { type: "image"; projectId: string; imageId: string; change: "created" | "deleted" | "thumbnail" }
  | { type: "project"; projectId: string; change: "updated" | "deleted" }
  | ({ type: "queue" } & QueueStatus)
  | { type: "error"; code: string; message: string }
  | { type: "auth.expired" }
  | { type: "pong"; t: number };
