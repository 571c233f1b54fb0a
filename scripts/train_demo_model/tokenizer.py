"""The demo model's tokenizer: byte-level BPE with the pre-tokenizer of the Tekken family."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

UNK, BOS, EOS, INST, END_INST, PAD = "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"
SPECIAL_TOKENS = [UNK, BOS, EOS, INST, END_INST, PAD]
BOS_ID, EOS_ID, PAD_ID = (SPECIAL_TOKENS.index(token) for token in (BOS, EOS, PAD))

# A piece of text is, in this order of preference: a word in title or lower case, a word that begins in upper case,
# one digit, punctuation, line ends, spaces. A word takes one character before it (mostly a space) along.
UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
LEAD = r"[^\r\n\p{L}\p{N}]?"
SPLIT = "|".join([
    rf"{LEAD}[{UPPER}]*[{LOWER}]+",
    rf"{LEAD}[{UPPER}]+[{LOWER}]*",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])

# Chats are laid out as `<s>[INST] question [/INST] answer</s>[INST] question [/INST] answer</s>`; a system message goes
# in front of the first question.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- set ns = namespace(system='', user_next=true) %}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}"
    "{%- set ns.system = message['content'] + '\n\n' %}"
    "{%- elif (message['role'] == 'user') != ns.user_next %}"
    "{{- raise_exception('user and assistant messages must take turns, the user first') }}"
    "{%- elif message['role'] == 'user' %}"
    "{{- '[INST] ' + ns.system + message['content'] + ' [/INST]' }}"
    "{%- set ns.system = '' %}"
    "{%- set ns.user_next = false %}"
    "{%- elif message['role'] == 'assistant' %}"
    "{{- ' ' + message['content'] + eos_token }}"
    "{%- set ns.user_next = true %}"
    "{%- else %}"
    "{{- raise_exception('only system, user and assistant messages are known') }}"
    "{%- endif %}"
    "{%- endfor %}"
)


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Learns merges from the texts, which must be free of control tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token=None, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    ))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)],
    )
    return tokenizer


def tokenizer_config(context: int) -> dict:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(index): {
                "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True,
            }
            for index, token in enumerate(SPECIAL_TOKENS)
        },
        "bos_token": BOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "model_max_length": context,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNK,
    }
