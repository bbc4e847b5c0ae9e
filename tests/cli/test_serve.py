"""`posterhall serve`: the process, its models by name, signals, and what it does not do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import torch

from posterhall.cli.serve import _connect
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import UsageError
from posterhall.lm import EchoLM, LocalLM
from posterhall.models import Decoder, DecoderConfig, save

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = DecoderConfig(vocab_size=258, dim=16, layers=2, heads=2, max_length=64, init_std=0.3)
    return save(
        Decoder(config, seed=1), tmp_path_factory.mktemp("models") / "tiny", tokenizer=ByteTokenizer()
    )


@contextmanager
def served(*arguments, **environ):
    """The process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "posterhall", "serve", *map(str, arguments), "--port", "0", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ},
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        yield process, line, re.search(r"http://\S+", line)[0]
    finally:
        process.kill()
        process.communicate()


def call(url, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_a_model_is_served_until_it_is_stopped(model, posterhall):
    said = posterhall("model", "generate", model, "-p", "Hello", "-n", 12, "--temperature", 0, "--json").out
    expected = json.loads(said)["samples"][0]["text"]
    with served(model, "small=echo", "--token-env", "T", T="secret") as (process, line, address):
        assert line.startswith("serving tiny, small at http://127.0.0.1:")
        allowed = {"Authorization": "Bearer secret"}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            call(f"{address}/models")
        assert [each["id"] for each in call(f"{address}/models", **allowed)["data"]] == ["tiny", "small"]
        body = {"model": "tiny", "prompt": "Hello", "max_tokens": 12, "temperature": 0}
        assert call(f"{address}/completions", body, **allowed)["choices"][0]["text"] == expected
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def test_models_have_names(model):
    served = _connect([str(model), "other=" + str(model), "echo", "e2=echo"], {"batch": 3}, "game24", [])
    assert list(served) == ["tiny", "other", "echo", "e2"]
    assert served["tiny"] is served["other"]  # loaded once
    assert isinstance(served["tiny"], LocalLM)
    assert isinstance(served["e2"], EchoLM)
    with pytest.raises(UsageError, match="two models are called echo"):
        _connect(["echo", "echo"], {}, "game24", [])


def test_a_model_that_searches(model):
    served = _connect([str(model), f"tot:{model}", f"deep=tot:{model}"], {}, "game24", ["breadth=2"])
    assert list(served) == ["tiny", "tot:tiny", "deep"]
    assert served["tot:tiny"].lm is served["tiny"]
    assert served["deep"].settings.breadth == 2
    with pytest.raises(UsageError, match="write tot:MODEL"):
        _connect(["tot:"], {}, "game24", [])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["echo", "--host", "0.0.0.0"], 2, "lets other machines in; give --token-env"),
        (["echo", "--token-env", "NO_SUCH"], 2, "NO_SUCH, which is not set"),
        (["nothing/here/there"], 4, "allowed are"),
        (["tot:echo", "--task", "chess"], 4, "no task is called 'chess'"),
        (["tot:echo", "--set", "bredth=3"], 4, "breadth"),
        (["echo", "--host", "host.invalid", "--insecure"], 4, "cannot listen at host.invalid"),
        ([], 2, "MODEL"),
    ],
)
def test_what_is_refused(posterhall, arguments, code, message):
    assert message in posterhall("serve", *arguments, code=code).err
