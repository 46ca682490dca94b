"""Cityscapes label ids that the procedural street scenes use, and the 13 groups that are scored."""

from __future__ import annotations

from enum import IntEnum


class LabelId(IntEnum):
    """The `labelIds` values of Cityscapes that a painted scene may hold."""

    UNLABELED = 0
    EGO_VEHICLE = 1
    STATIC = 4
    ROAD = 7
    SIDEWALK = 8
    RAIL_TRACK = 10
    BUILDING = 11
    WALL = 12
    FENCE = 13
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    TRAIN = 31
    MOTORCYCLE = 32
    BICYCLE = 33


SCENE_GROUPS: dict[str, tuple[LabelId, ...]] = {
    "road": (LabelId.ROAD,),
    "sidewalk": (LabelId.SIDEWALK,),
    "building": (LabelId.BUILDING, LabelId.WALL, LabelId.FENCE),
    "pole": (LabelId.POLE,),
    "traffic light": (LabelId.TRAFFIC_LIGHT,),
    "traffic sign": (LabelId.TRAFFIC_SIGN,),
    "vegetation": (LabelId.VEGETATION, LabelId.TERRAIN),
    "sky": (LabelId.SKY,),
    "person": (LabelId.PERSON,),
    "rider": (LabelId.RIDER,),
    "car": (LabelId.CAR,),
    "large vehicle": (LabelId.TRUCK, LabelId.BUS, LabelId.TRAIN),
    "two-wheeler": (LabelId.MOTORCYCLE, LabelId.BICYCLE),
}
"""The 13 groups; every split that is written holds pixels of each of them."""

RARE_GROUPS: tuple[str, ...] = (
    "traffic light",
    "traffic sign",
    "person",
    "rider",
    "large vehicle",
    "two-wheeler",
)
"""Groups that are small objects, planned one by one so that they are in enough of the scenes."""
