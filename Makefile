# The commands of the repository. Needs Go 1.26 and, for the tests, Debian 12 with the
# packages named in test/peers/peers.txt, which "make test" installs when it runs as root.

GO       ?= go
FUZZTIME ?= 30s
CAMPAIGN ?= 30m
MUTANTS  ?= 30m
SOAK     ?= 60m
export GO FUZZTIME CAMPAIGN

.PHONY: help test peers lint demo bench soak fuzz campaign mutants

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

test: peers lint ## everything that has to be green; SKIP_PEERS=1 leaves out the real peers
	@tools/test

peers: ## install the real peers that are missing, or say which
	@tools/peers

lint: ## gofmt, go vet, staticcheck
	@tools/lint

demo: ## watch a cutover and a rollback under traffic
	$(GO) run ./cmd/mailcutover demo

bench: ## print the figures of docs/performance.md, no part is begun after an hour; BENCH=-quick: rougher
	$(GO) run ./bench $(BENCH)

soak: ## load on three nodes for SOAK (60m, 10m): does all that they took come back?
	$(GO) run ./bench/soak -for $(SOAK)

fuzz: ## run each fuzz target for FUZZTIME
	@tools/fuzz

campaign: peers ## crashes, kills, random histories and further seeds, for CAMPAIGN (30m, 2h)
	@tools/campaign

mutants: ## leave out one rule of the switch after the other; the simulation has to notice
	@tools/mutants -time $(MUTANTS)
