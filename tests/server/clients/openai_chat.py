"""A chat with the `openai` client, whole and streamed: `openai_chat.py URL KEY MODEL`."""

import json
import sys

from openai import NotFoundError, OpenAI

url, key, model = sys.argv[1:]
SEED = {"random_seed": 7}  # what OpenAI calls `seed`
question = {
    "model": model,
    "messages": [{"role": "user", "content": "How many is 3?"}],
    "max_tokens": 20,
    "temperature": 1.5,
}
with OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0) as client:
    answer = client.chat.completions.create(**question, extra_body=SEED)
    parts = client.chat.completions.create(**question, stream=True, extra_body=SEED)
    streamed = "".join(part.choices[0].delta.content or "" for part in parts)
    try:
        client.chat.completions.create(**question | {"model": "nobody"})
    except NotFoundError:
        print(json.dumps({"answer": answer.choices[0].message.content, "streamed": streamed}))
