"""What compare.py asks: prompts that tokenizers, templates and models treat in ways of their own."""

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

CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "What is the capital of Italy?"},
    ],
    [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada! How can I help you?"},
        {"role": "user", "content": "What is my name?"},
    ],
    [{"role": "user", "content": "  Blanks around,\nlines\n\nbetween  "}],
    [{"role": "user", "content": "Schreibe einen Satz über Bäume. 🌳"}],
    [{"role": "user", "content": "Write a Python function that reverses a string."}],
    [{"role": "user", "content": "Repeat: " + "la " * 200}],
]
