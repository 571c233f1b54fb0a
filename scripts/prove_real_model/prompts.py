"""What compare.py asks, as lines of a prompts file: what tokenizers, templates and models treat in ways of their own."""

COMPLETIONS = [
    "Complete the paragraph: our solar system is",
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "1 + 1 = 2, 2 + 2 = 4, 1234 + 4321 =",
    "  two blanks before,\ttabs\tbetween,\n\n\nempty lines, and a blank at the end ",
    "Ünïcödé: Grüße aus Köln, Привет, こんにちは, 안녕하세요, שלום, مرحبا",
    "Emoji 👩‍👩‍👧‍👦 and 🏳️‍🌈 and e\u0301 are made of several characters:",
    "<b>HTML</b> & {\"json\": [1, 2.5e-3, null]} `code`",
    "<s> and </s> and <|im_start|> and [INST] in the text of a completion",
    "A",
    "It was the best of times, it was the worst of times, " * 20,
    "Numbers: " + ", ".join(str(number) for number in range(300)),
]


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city, \"now\" & in <degrees>.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}
CALL = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}

CHATS = [
    # One turn.
    {"messages": [user("What is the capital of France?")]},
    {"messages": [user("Write a Python function that reverses a string.")]},
    {"messages": [user("Explain in three sentences why the sky is blue.")]},
    {"messages": [user("Repeat: " + "la " * 200)]},
    # System messages.
    {"messages": [system("You answer in one word."), user("What is the capital of Italy?")]},
    {"messages": [user("What is the capital of Spain?")], "system": "You are a pirate.\nYou say “Arrr”."},
    {"messages": [system(""), user("An empty system message.")]},
    # Several turns.
    {"messages": [user("My name is Ada."), assistant("Hello Ada! How can I help you?"), user("What is my name?")]},
    {"messages": [system("Count."), *([user("Next?"), assistant("One more.")] * 12), user("How many were there?")]},
    {"messages": [user("Two messages"), user("of one user")]},
    # What is in a message.
    {"messages": [user("  Blanks around,\nlines\n\nbetween  ")]},
    {"messages": [user("Schreibe einen Satz über Bäume. 🌳")]},
    {"messages": [user("שלום, こんにちは, e\u0301, 👩‍👩‍👧‍👦, \u200bno width, \u00a0no break, \U0001d54f")]},
    {"messages": [user("{\"json\": [1, 2.5e-3, null]} <b>HTML</b> & 'quotes' {{ braces }} {% if x %} \\n")]},
    {"messages": [user([{"type": "text", "text": "A text in"}, {"type": "text", "text": " two parts."}])]},
    {
        "messages": [user("<s>a</s> <|im_start|>b<|im_end|> [INST]c[/INST] <|eot_id|>")],
        "allow_special_tokens_in_messages": True,  # as Transformers does
    },
    # What else templates are given.
    {
        "messages": [user("Bonjour!")],
        "chat_template_kwargs": {"bos_token": "", "enable_thinking": False, "date_string": "26 Jul 2024"},
    },
    {"messages": [user("What is the weather in Köln?")], "tools": [WEATHER]},
    {
        "messages": [
            user("What is the weather in Köln?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": CALL["id"], "name": "get_weather", "content": "{\"degrees\": 21.5}"},
        ],
        "tools": [WEATHER],
    },
    {"messages": [user("What do the texts say?")], "documents": [{"title": "One", "text": "Water is wet."}]},
    # An answer that has begun.
    {"messages": [user("What is the capital of France?"), assistant("The capital of")], "continue_final_message": True},
    {"messages": [user("List two fruits."), assistant("Here they are:\n1. ")], "continue_final_message": True},
]  # fmt: skip
