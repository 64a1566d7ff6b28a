.PHONY: install unit test nightly browser lint types layers format notebooks outputs screenshots examples readme bench ci constraints

install: ; pip install -e ".[dev]"
unit: ; pytest -q tests/unit
test: ; pytest
nightly: ; pytest --numprocesses=auto --hypothesis-profile nightly
browser: ; pytest -m browser
lint: ; ruff check . && ruff format --check .
types: ; mypy
layers: ; lint-imports
format: ; ruff check --fix . && ruff format .
notebooks: ; .ci/notebooks
outputs: ; jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb
screenshots: ; python tools/screenshots.py
examples: ; .ci/examples
readme: ; python .ci/readme_blocks.py README.md
bench: ; python -m benchmarks
ci: ; .ci/run
constraints: ; KEEP_CONSTRAINTS=1 .ci/run
