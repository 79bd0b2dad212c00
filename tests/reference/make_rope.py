"""How transformers 5 reads every mixture of the old and the new rope fields in config.json."""
import copy

from common import FIXTURES, write_json

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
             vocab_size=300, max_position_embeddings=256, head_dim=8)
FULL = {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0}
OLD = [None, {}, {"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 2.0, "rope_theta": 7.0}]
NEW = [None, {"rope_type": "default", "rope_theta": 10000.0}, FULL, {"full_attention": FULL},
       {"full_attention": FULL, "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}]

rows = []
for family in ["llama", "gemma3_text"]:
    for old in OLD:
        for new in NEW:
            for theta in [None, 777.0]:
                fields = {"rope_scaling": old, "rope_parameters": new, "rope_theta": theta,
                          "rope_local_base_freq": theta and 33.0}
                given = {name: value for name, value in fields.items() if value is not None}
                try:
                    rope = CONFIG_MAPPING[family].from_dict(copy.deepcopy({**SIZES, **given})).rope_parameters
                except KeyError:
                    rope = None
                rows.append({"family": family, "fields": given, "rope": rope})
write_json(FIXTURES / "rope" / "expected.json", {"transformers": transformers.__version__, "sizes": SIZES, "rows": rows})
