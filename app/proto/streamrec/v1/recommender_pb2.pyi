from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DegradationLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADATION_LEVEL_UNSPECIFIED: _ClassVar[DegradationLevel]
    DEGRADATION_LEVEL_FULL: _ClassVar[DegradationLevel]
    DEGRADATION_LEVEL_PARTIAL_RETRIEVAL: _ClassVar[DegradationLevel]
    DEGRADATION_LEVEL_STALE_FEATURES: _ClassVar[DegradationLevel]
    DEGRADATION_LEVEL_SIMPLE_RANKING: _ClassVar[DegradationLevel]
    DEGRADATION_LEVEL_BATCH_LIST: _ClassVar[DegradationLevel]
    DEGRADATION_LEVEL_POPULAR: _ClassVar[DegradationLevel]
DEGRADATION_LEVEL_UNSPECIFIED: DegradationLevel
DEGRADATION_LEVEL_FULL: DegradationLevel
DEGRADATION_LEVEL_PARTIAL_RETRIEVAL: DegradationLevel
DEGRADATION_LEVEL_STALE_FEATURES: DegradationLevel
DEGRADATION_LEVEL_SIMPLE_RANKING: DegradationLevel
DEGRADATION_LEVEL_BATCH_LIST: DegradationLevel
DEGRADATION_LEVEL_POPULAR: DegradationLevel

class Context(_message.Message):
    __slots__ = ("device", "surface", "region", "max_age_rating")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_RATING_FIELD_NUMBER: _ClassVar[int]
    device: str
    surface: str
    region: str
    max_age_rating: int
    def __init__(self, device: _Optional[str] = ..., surface: _Optional[str] = ..., region: _Optional[str] = ..., max_age_rating: _Optional[int] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "limit", "context", "exclude_item_ids", "recent_item_ids", "debug", "cursor")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    limit: int
    context: Context
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    debug: bool
    cursor: str
    def __init__(self, user_id: _Optional[str] = ..., limit: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., recent_item_ids: _Optional[_Iterable[str]] = ..., debug: _Optional[bool] = ..., cursor: _Optional[str] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "title", "score", "sources", "rule")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    sources: _containers.RepeatedScalarFieldContainer[str]
    rule: str
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., sources: _Optional[_Iterable[str]] = ..., rule: _Optional[str] = ...) -> None: ...

class Degradation(_message.Message):
    __slots__ = ("level", "reasons")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    level: DegradationLevel
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, level: _Optional[_Union[DegradationLevel, str]] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class Funnel(_message.Message):
    __slots__ = ("sources", "merged", "filtered", "added", "ranked", "slate")
    class SourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    FILTERED_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    RANKED_FIELD_NUMBER: _ClassVar[int]
    SLATE_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.ScalarMap[str, int]
    merged: int
    filtered: int
    added: int
    ranked: int
    slate: int
    def __init__(self, sources: _Optional[_Mapping[str, int]] = ..., merged: _Optional[int] = ..., filtered: _Optional[int] = ..., added: _Optional[int] = ..., ranked: _Optional[int] = ..., slate: _Optional[int] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("source", "rank", "score")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    source: str
    rank: int
    score: float
    def __init__(self, source: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("rule", "before", "after")
    RULE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    rule: str
    before: int
    after: int
    def __init__(self, rule: _Optional[str] = ..., before: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class Explained(_message.Message):
    __slots__ = ("item_id", "title", "step", "reason", "sources", "ranker_score", "ranked_place", "moves", "place")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    RANKER_SCORE_FIELD_NUMBER: _ClassVar[int]
    RANKED_PLACE_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    step: str
    reason: str
    sources: _containers.RepeatedCompositeFieldContainer[Proposal]
    ranker_score: float
    ranked_place: int
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    place: int
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., step: _Optional[str] = ..., reason: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Proposal, _Mapping]]] = ..., ranker_score: _Optional[float] = ..., ranked_place: _Optional[int] = ..., moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ..., place: _Optional[int] = ...) -> None: ...

class Debug(_message.Message):
    __slots__ = ("ranked", "worker", "funnel", "items")
    RANKED_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FUNNEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ranked: int
    worker: int
    funnel: Funnel
    items: _containers.RepeatedCompositeFieldContainer[Explained]
    def __init__(self, ranked: _Optional[int] = ..., worker: _Optional[int] = ..., funnel: _Optional[_Union[Funnel, _Mapping]] = ..., items: _Optional[_Iterable[_Union[Explained, _Mapping]]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("request_id", "bundle", "items", "degradation", "timing_ms", "debug", "cursor", "arms")
    class TimingMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ArmsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    DEGRADATION_FIELD_NUMBER: _ClassVar[int]
    TIMING_MS_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    bundle: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    degradation: Degradation
    timing_ms: _containers.ScalarMap[str, float]
    debug: Debug
    cursor: str
    arms: _containers.ScalarMap[str, str]
    def __init__(self, request_id: _Optional[str] = ..., bundle: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., degradation: _Optional[_Union[Degradation, _Mapping]] = ..., timing_ms: _Optional[_Mapping[str, float]] = ..., debug: _Optional[_Union[Debug, _Mapping]] = ..., cursor: _Optional[str] = ..., arms: _Optional[_Mapping[str, str]] = ...) -> None: ...
