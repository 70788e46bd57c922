"""The pieces of an output as one GDAL dataset, a VRT, that knows everything that the input file knew.

Georeference, GCPs and RPCs are scaled with the pixels; names, units, scales, offsets, colors, tags and nodata are
carried as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from affine import Affine
from rasterio.windows import Window

from orl_ldm.upscale.source import Source

GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}

#: Tags that say something of the input's pixels that is no longer true, or that the writer sets itself.
STALE = ("STATISTICS_", "AREA_OR_POINT", "OVR_RESAMPLING_ALG")


@dataclass(frozen=True)
class Placed:
    """A piece's file and where it lies in the output, in HR pixels."""

    path: Path
    row: int
    column: int
    height: int
    width: int


def write_mosaic(
    path: Path, source: Source, part: Window, scale: int, pieces: list[Placed], tags: Mapping[str, str]
) -> None:
    """Write the VRT of an output: `part` of the input, `scale` times as large; `tags` are added to the input's."""
    dataset, count = source.dataset, source.dataset.count
    root = _root(source, part, scale)
    _metadata(root, {**_kept(dataset.tags()), **tags, **_point(dataset)})
    for band in range(1, count + 1):
        element = ET.SubElement(root, "VRTRasterBand", dataType=GDAL_TYPES[str(source.dtype)], band=str(band))
        _metadata(element, _kept(dataset.tags(band)))
        facts = {
            "Description": dataset.descriptions[band - 1],
            "UnitType": dataset.units[band - 1],
            "NoDataValue": dataset.nodatavals[band - 1],
            "Offset": dataset.offsets[band - 1] or None,
            "Scale": dataset.scales[band - 1] if dataset.scales[band - 1] != 1 else None,
            "ColorInterp": dataset.colorinterp[band - 1].name.capitalize(),
        }
        for name, value in facts.items():
            if value is not None:
                ET.SubElement(element, name).text = repr(value) if isinstance(value, float) else str(value)
        _sources(element, pieces, band)
    if source.has_mask_band:
        mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        _sources(mask, pieces, count + 1)
    ET.ElementTree(root).write(path, encoding="utf-8")


def write_plane(path: Path, source: Source, part: Window, scale: int, pieces: list[Placed], name: str) -> None:
    """Write the VRT of one float band in the same place."""
    root = _root(source, part, scale)
    band = ET.SubElement(root, "VRTRasterBand", dataType="Float32", band="1")
    ET.SubElement(band, "Description").text = name
    ET.SubElement(band, "NoDataValue").text = "nan"
    _sources(band, pieces, 1)
    ET.ElementTree(root).write(path, encoding="utf-8")


def output_transform(transform: Affine, part: Window, scale: int) -> Affine:
    """The transform of a part of an image that was made `scale` times as large; rotation and shear survive."""
    return transform * Affine.translation(part.col_off, part.row_off) * Affine.scale(1 / scale)


def _root(source: Source, part: Window, scale: int) -> ET.Element:
    dataset = source.dataset
    root = ET.Element("VRTDataset", rasterXSize=str(part.width * scale), rasterYSize=str(part.height * scale))
    gcps, gcp_crs = dataset.gcps
    if dataset.crs:
        ET.SubElement(root, "SRS").text = dataset.crs.to_wkt()
    if not dataset.transform.is_identity:
        six = output_transform(dataset.transform, part, scale).to_gdal()
        ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(value)) for value in six)
    elif gcps:
        points = ET.SubElement(root, "GCPList", Projection=gcp_crs.to_wkt() if gcp_crs else "")
        for point in gcps:
            place = {"Pixel": (point.col - part.col_off) * scale, "Line": (point.row - part.row_off) * scale}
            numbers = {**place, "X": point.x, "Y": point.y, "Z": point.z or 0.0}
            named = {"Id": str(point.id or ""), "Info": point.info or ""}
            ET.SubElement(points, "GCP", {**named, **{key: repr(float(value)) for key, value in numbers.items()}})
    if dataset.rpcs is not None:
        rpcs = dataset.rpcs
        # RPCs count from the center of the first pixel.
        rpcs.line_off = (rpcs.line_off - part.row_off + 0.5) * scale - 0.5
        rpcs.samp_off = (rpcs.samp_off - part.col_off + 0.5) * scale - 0.5
        rpcs.line_scale, rpcs.samp_scale = rpcs.line_scale * scale, rpcs.samp_scale * scale
        _metadata(root, {k: str(v) for k, v in rpcs.to_gdal().items()}, {"domain": "RPC"})
    return root


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(STALE)}


def _point(dataset: Any) -> dict[str, str]:
    where = dataset.tags().get("AREA_OR_POINT")
    return {"AREA_OR_POINT": where} if where else {}


def _metadata(parent: ET.Element, tags: Mapping[str, str], attributes: dict[str, str] | None = None) -> None:
    if tags:
        element = ET.SubElement(parent, "Metadata", attributes or {})
        for key, value in tags.items():
            ET.SubElement(element, "MDI", key=key).text = value


def _sources(band: ET.Element, pieces: list[Placed], index: int) -> None:
    for piece in pieces:
        source = ET.SubElement(band, "SimpleSource")
        ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = piece.path.name
        ET.SubElement(source, "SourceBand").text = str(index)
        size = {"xSize": str(piece.width), "ySize": str(piece.height)}
        ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        ET.SubElement(source, "DstRect", {"xOff": str(piece.column), "yOff": str(piece.row), **size})
