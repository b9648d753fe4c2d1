"""Every bound that requests are checked against, in one place. The proto comments promise exactly these."""

MAX_NAME_CHARACTERS = 64
MAX_SHARDS = 256
MAX_REPLICAS = 8
MAX_DIMENSION = 8192
MAX_MODEL_REVISION_BYTES = 128
MAX_MODEL_PREFIX_BYTES = 1024
MAX_MODEL_POOLING_BYTES = 64

MAX_BATCH_ITEMS = 1000
MAX_BATCH_BYTES = 16 * 2**20
MAX_ATTRIBUTES_BYTES = 64 * 2**10
MAX_ATTRIBUTES_DEPTH = 16
MAX_TEXT_BYTES = 256 * 2**10
MAX_REQUEST_ID_BYTES = 64
MAX_TOKEN_BYTES = 64 * 2**10

MAX_K = 1000
DEFAULT_K = 10
MIN_OVERSAMPLING = 1.0
MAX_OVERSAMPLING = 100.0
MAX_CANDIDATES = 10_000
MAX_EF_SEARCH = MAX_CANDIDATES
MAX_QUERIES = 256
# The best hit that a page can reach: offset + k. Also the most hits of all groups: k x size.
MAX_HITS = 1000
DEFAULT_GROUP_SIZE = 1
MAX_GROUP_SIZE = 100

# Every condition of a filter counts, "all", "any" and "not" included; one alone is 1 deep.
MAX_FILTER_CONDITIONS = 256
MAX_FILTER_DEPTH = 16
MAX_ATTRIBUTE_NAME_BYTES = 512
MAX_FILTER_VALUE_BYTES = 1024
MAX_ONE_OF_VALUES = 1000

DEFAULT_SCROLL_LIMIT = 100
MAX_SCROLL_LIMIT = 1000
# A page of large documents is cut when it reaches this, so that it stays below the message limit.
MAX_PAGE_BYTES = 16 * 2**20

DEFAULT_DELETE_LIMIT = 10_000
MAX_DELETE_LIMIT = 100_000

# Pulls of documents to re-embed: how many by default, and for how long nobody else gets them.
DEFAULT_PULL = 100
DEFAULT_LEASE_S = 60.0
MIN_LEASE_S = 1.0
MAX_LEASE_S = 3600.0

# A residual MLP between two models of 4096 dimensions takes a little over 80 MiB.
MAX_ARTIFACT_BYTES = 96 * 2**20
# Artifacts travel in chunks, in calls and to and from Redis alike.
MAX_ARTIFACT_CHUNK_BYTES = 2**20
# Of one coordinator, at the same time.
MAX_ARTIFACT_UPLOADS = 8

DEFAULT_VERIFY_QUERIES = 100
MAX_VERIFY_QUERIES = 1000
DEFAULT_VERIFY_K = 10
MAX_VERIFY_K = 100

DEFAULT_DEADLINE_S = 10.0
# Of a check that scans every vector of every replica.
DEFAULT_VERIFY_DEADLINE_S = 600.0
# Of the upload of an artifact, which Redis keeps for no longer before it is complete.
DEFAULT_UPLOAD_DEADLINE_S = 600.0
# gRPC refuses larger messages; above the largest legal batch with room for ids and framing.
MAX_MESSAGE_BYTES = 48 * 2**20
