// OpenSeadragon with our tiles, and the view in the terms of the outline layer. Loaded only with the viewer.
import OpenSeadragon from "openseadragon";
import { images } from "../../api/endpoints";
import type { TileInfo } from "../../api/types";
import type { View } from "../../outlines/layer";

export interface DeepZoomEvents {
  onView: (view: View) => void;
  onLoaded: (loaded: boolean) => void;
  onClick: (x: number, y: number) => void;
  onFailed: () => void;
}

const MAX_PIXEL_RATIO = 24;

export class DeepZoom {
  private readonly osd: OpenSeadragon.Viewer;

  constructor(element: HTMLElement, imageId: string, tiles: TileInfo, calm: boolean, events: DeepZoomEvents) {
    this.osd = OpenSeadragon({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: false,
      animationTime: calm ? 0 : 0.35,
      springStiffness: 9,
      visibilityRatio: 0.25,
      constrainDuringPan: false,
      minZoomImageRatio: 0.5,
      maxZoomPixelRatio: MAX_PIXEL_RATIO,
      zoomPerScroll: 1.25,
      imageSmoothingEnabled: false,
      immediateRender: true,
      blendTime: 0,
      imageLoaderLimit: 8,
      timeout: 60_000,
      loadTilesWithAjax: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true, flickEnabled: !calm },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      tileSources: {
        width: tiles.width,
        height: tiles.height,
        tileSize: tiles.tileSize,
        tileOverlap: 0,
        minLevel: 0,
        maxLevel: tiles.maxLevel,
        getTileUrl: (level: number, x: number, y: number) => images.tileUrl(imageId, level, x, y),
      } as unknown as OpenSeadragon.TileSourceOptions,
    } as OpenSeadragon.Options);
    const { osd } = this;
    const report = (): void => {
      const view = this.view();
      if (view) events.onView(view);
    };
    osd.addHandler("update-viewport", report);
    osd.addHandler("animation", report);
    osd.addHandler("resize", report);
    osd.addHandler("open", () => {
      const item = osd.world.getItemAt(0);
      item.addHandler("fully-loaded-change", (event) => events.onLoaded(event.fullyLoaded));
      report();
      if (item.getFullyLoaded()) events.onLoaded(true);
    });
    osd.addHandler("open-failed", events.onFailed);
    // Keys belong to the page, not to the picture.
    osd.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true;
    });
    osd.addHandler("canvas-click", (event) => {
      if (event.quick) events.onClick(event.position.x, event.position.y);
    });
  }

  destroy(): void {
    this.osd.destroy();
  }

  private view(): View | null {
    const item = this.osd.world.getItemAt(0);
    if (!item) return null;
    const { viewport } = this.osd;
    const corner = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    return { scale: viewport.viewportToImageZoom(viewport.getZoom(true)), x: corner.x, y: corner.y };
  }

  fit(): void {
    this.osd.viewport.goHome();
  }

  zoomBy(factor: number): void {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  panBy(dx: number, dy: number): void {
    const { viewport } = this.osd;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(dx, dy)));
    viewport.applyConstraints();
  }

  /** One image pixel on one screen pixel. */
  actualSize(): void {
    const { viewport } = this.osd;
    viewport.zoomTo(viewport.imageToViewportZoom(1));
  }

  /** Brings a box of the image into sight, without moving when it already is. */
  reveal(x0: number, y0: number, x1: number, y1: number): void {
    const { viewport } = this.osd;
    const box = viewport.imageToViewportRectangle(x0, y0, x1 - x0, y1 - y0);
    const seen = viewport.getBounds();
    const inside = box.x >= seen.x && box.y >= seen.y && box.x + box.width <= seen.x + seen.width &&
      box.y + box.height <= seen.y + seen.height;
    const large = box.width > seen.width / 40 || box.height > seen.height / 40;
    if (inside && large) return;
    if (large && box.width < seen.width && box.height < seen.height) viewport.panTo(box.getCenter());
    else {
      const size = Math.max(box.width, box.height) * 8;
      const centre = box.getCenter();
      viewport.fitBounds(new OpenSeadragon.Rect(centre.x - size / 2, centre.y - size / 2, size, size));
    }
    viewport.applyConstraints();
  }
}
