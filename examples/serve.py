"""Serve the pocket pool, and ask it with OpenAI's client: `python examples/serve.py`. No key, no network."""

import json
import subprocess
import sys

import openai

server = subprocess.Popen(
    [sys.executable, "-m", "eccos_core.cli", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True
)
assert server.stderr is not None
try:
    for line in server.stderr:  # it says where it listens
        if "http://" in line:
            address = line.split(" at ")[1].split(" (")[0]
            break

    client = openai.OpenAI(base_url=address, api_key="none")
    question = [{"role": "user", "content": "What is the capital of France?"}]

    answer = client.chat.completions.with_raw_response.create(model="eccos", messages=question)  # type: ignore[arg-type]
    print(answer.parse().choices[0].message.content)
    print("answered by", answer.headers["x-eccos-model"], "because", answer.headers["x-eccos-reason"])

    # a policy, by the model's name
    best = client.chat.completions.create(model="eccos:best", messages=question)  # type: ignore[arg-type]
    print("the best forecast has", best.model)

    # a file of questions is one joint assignment
    lines = [
        {
            "custom_id": f"sum-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "eccos", "messages": [{"role": "user", "content": f"What is {number} plus 2?"}]},
        }
        for number in range(10)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    uploaded = client.files.create(file=("sums.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in ("completed", "failed"):
        batch = client.batches.retrieve(batch.id)
    counts, certificate = batch.request_counts, batch.model_extra["eccos"]["certificates"][0]  # type: ignore[index]
    print(counts, "solved by", certificate["engine"], "with a gap of", certificate["gap"])
finally:
    server.terminate()
    server.wait()
