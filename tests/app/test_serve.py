"""Starting and stopping: a bad start is one line and a failure, a stop answers what was accepted."""

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import torchlight
from tests_support import noop  # noqa: F401
