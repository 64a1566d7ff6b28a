.PHONY: install test lint types layers format notebooks examples readme bench ci

install: ; pip install -e ".[dev]"
test: ; pytest
lint: ; ruff check . && ruff format --check .
types: ; mypy
layers: ; lint-imports
format: ; ruff check --fix . && ruff format .
notebooks: ; .ci/notebooks
examples: ; .ci/examples
readme: ; python .ci/readme_blocks.py README.md
bench: ; python -m benchmarks
ci: ; .ci/run
