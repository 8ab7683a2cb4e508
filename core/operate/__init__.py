"""The one door for acts: whatever an operator or application does to jobs, queues, bridges, dead letters and
sinks is a function of this room, called by Queue, CLI and API alike."""

from .bridges import BridgeRecord as BridgeRecord
from .bridges import PartitionOffset as PartitionOffset
from .bridges import bridge_offsets as bridge_offsets
from .bridges import bridges as bridges
from .bridges import pause_bridge as pause_bridge
from .bridges import resume_bridge as resume_bridge
from .bridges import seek_bridge as seek_bridge
from .dead_letters import DeadLetter as DeadLetter
from .dead_letters import DeadLetterBody as DeadLetterBody
from .dead_letters import Replayer as Replayer
from .dead_letters import dead_letter as dead_letter
from .dead_letters import dead_letters as dead_letters
from .dead_letters import discard as discard
from .dead_letters import replay as replay
from .jobs import Attempt as Attempt
from .jobs import attempts as attempts
from .jobs import cancel as cancel
from .jobs import retry as retry
from .queues import pause_queue as pause_queue
from .queues import resume_queue as resume_queue
from .sinks import DeliveryRecord as DeliveryRecord
from .sinks import SinkInfo as SinkInfo
from .sinks import deliveries as deliveries
from .sinks import disable_sink as disable_sink
from .sinks import pause_sink as pause_sink
from .sinks import remove_sink as remove_sink
from .sinks import replay_delivery as replay_delivery
from .sinks import replay_sink_since as replay_sink_since
from .sinks import resume_sink as resume_sink
from .sinks import sinks as sinks
from .workers import WorkerInfo as WorkerInfo
from .workers import workers as workers
