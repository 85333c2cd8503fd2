package config

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// full sets something in each section, with secrets of every kind.
const full = `node: mx1.example.org
data: state
table: {redis: {url: "rediss://redis.example.org/1", username: u, password_env: REDIS, replicas: 2}}
listeners:
  - {id: mx, address: ":25", inside_nets: [10.0.0.0/8, 192.0.2.7], limits: {idle: 90s, message_bytes: 36MiB, data_rate: 1KiB/s}}
  - {id: lmtp, protocol: lmtp, address: ":24"}
logins:
  listeners: [{id: imap, protocol: imap, address: "127.0.0.1:143", tls: {mode: none, required: false}}]
  failures: {delay: 2s}
  domains: [{name: MAIL, suffix: agency.example}]
platforms:
  - id: exchange
    connection_limit: 2m
    outside:
      hosts: ["exchange.example.org:25"]
      tls: {policy: verified, pins: ["sha256:abababababababababababababababababababababababababababababababab"]}
      auth: {mechanism: plain, username: "12", password_env: EXCHANGE}
    inside: {helo: inside.example.org}
    imap: {hosts: ["exchange.example.org:143"], client_identity: id, delegate: '\'}
    submission: {hosts: ["exchange.example.org:587"]}
    pop3: {hosts: ["exchange.example.org:110"]}
    sieve: {hosts: ["127.0.0.1:4190"], tls: {policy: none}}
  - id: ox
    outside: {protocol: lmtp, hosts: ["dovecot.example.org:24"]}
    imap: {hosts: ["dovecot.example.org:993"], tls: {implicit: true}}
    mailboxes: {auth: {user: recall, password_env: AD}, retry: {max: 5m}}
    hooks: {close: {command: [/bin/true, a b], timeout: 1m}, open: {url: "https://ox.example.org/open", token_env: HOOK}, forward_on: {command: [/bin/true]}, forward_off: {command: [/bin/true], attempts: 1}}
    probe: {address: probe@ox.example, login: probe, password_env: PROBE}
recall: {folders: [{role: archive, names: [Altablage]}]}
operations: {canaries: [{agency: tax, address: canary@tax.example, login: canary, password_env: CANARY}]}
routing: {postmaster: postmaster@example.org, separator: ""}
notices:
  webhooks: [{name: ops, url: "https://hooks.example.org/x", secret_env: PEER, events: ["agency.*"], agencies: [tax]}]
  mail: [{name: night, to: [night@example.org], language: de, relay: "relay.example.org:25"}]
identity:
  key_env: LISTS
  directories: [{name: ad, servers: ["ldaps://dc1.example.org"], bind: {dn: "cn=reader,dc=example,dc=org", password_env: AD}, base: "dc=example,dc=org"}]
  agencies: [{agency: tax, bases: ["ou=tax,dc=example,dc=org"]}]
  places: [{platform: ox, login: "{upn}"}]
  coexistence: [{agency: tax, patterns: ["{local}.tmp@{domain}"]}]
  homes: [{kind: group, platform: exchange}]
admin: {peer: {secret_env: PEER}, tokens: [{name: a, person: "Anna: A", sha256: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd, roles: [viewer, operator], agencies: [tax]}], sign_on: {oidc: {issuer: "https://issuer.example.org", client_id: mc}, people: [{person: "Anna: A", subjects: [anna], roles: [viewer], agencies: [tax]}]}}
`

func loadFull(t *testing.T) *Config {
	t.Helper()
	return mustLoad(t, write(t, full), "REDIS=hunter2", "EXCHANGE=hunter3", "HOOK=hunter4", "PROBE=hunter8", "CANARY=hunter9", "PEER=hunter5-hunter5-hunter5-x", "LISTS=hunter6-hunter6-hunter6", "AD=hunter7")
}

func TestShowOnlyChanged(t *testing.T) {
	cfg := loadFull(t)
	got := Show(cfg, true)
	want := `node: mx1.example.org
data: DIR/state
table:
  redis:
    url: rediss://redis.example.org/1
    username: u
    password_env: REDIS
    replicas: 2
listeners:
  - id: mx
    address: :25
    inside_nets: [10.0.0.0/8, 192.0.2.7/32]
    limits:
      message_bytes: 36MiB
      idle: 1m30s
      data_rate: 1KiB/s
  - id: lmtp
    protocol: lmtp
    address: :24
logins:
  listeners:
    - id: imap
      protocol: imap
      address: 127.0.0.1:143
      tls:
        mode: none
        required: false
  failures:
    delay: 2s
  domains:
    - name: MAIL
      suffix: agency.example
platforms:
  - id: exchange
    connection_limit: 2m
    outside:
      hosts: ['exchange.example.org:25']
      tls:
        policy: verified
        pins: ['sha256:q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=']
      auth:
        mechanism: plain
        username: "12"
        password_env: EXCHANGE
    inside:
      helo: inside.example.org
    imap:
      hosts: ['exchange.example.org:143']
      client_identity: id
      delegate: \
    submission:
      hosts: ['exchange.example.org:587']
    pop3:
      hosts: ['exchange.example.org:110']
    sieve:
      hosts: ['127.0.0.1:4190']
      tls:
        policy: none
  - id: ox
    outside:
      protocol: lmtp
      hosts: ['dovecot.example.org:24']
    imap:
      hosts: ['dovecot.example.org:993']
      tls:
        implicit: true
    mailboxes:
      auth:
        user: recall
        password_env: AD
      retry:
        max: 5m
    hooks:
      close:
        command: [/bin/true, a b]
        timeout: 1m
      open:
        url: https://ox.example.org/open
        token_env: HOOK
      forward_on:
        command: [/bin/true]
      forward_off:
        command: [/bin/true]
        attempts: 1
    probe:
      address: probe@ox.example
      login: probe
      password_env: PROBE
routing:
  separator: ""
  postmaster: postmaster@example.org
notices:
  webhooks:
    - name: ops
      url: https://hooks.example.org/x
      secret_env: PEER
      events: [agency.*]
      agencies: [tax]
  mail:
    - name: night
      to: [night@example.org]
      language: de
      relay: relay.example.org:25
recall:
  folders:
    - role: archive
      names: [Altablage]
operations:
  canaries:
    - agency: tax
      address: canary@tax.example
      login: canary
      password_env: CANARY
identity:
  key_env: LISTS
  directories:
    - name: ad
      servers: ['ldaps://dc1.example.org']
      bind:
        dn: cn=reader,dc=example,dc=org
        password_env: AD
      base: dc=example,dc=org
  agencies:
    - agency: tax
      bases: ['ou=tax,dc=example,dc=org']
  places:
    - platform: ox
      login: '{upn}'
  coexistence:
    - agency: tax
      patterns: ['{local}.tmp@{domain}']
  homes:
    - kind: group
      platform: exchange
admin:
  peer:
    secret_env: PEER
  tokens:
    - name: a
      person: 'Anna: A'
      sha256: cdcdcdcd...
      roles: [viewer, operator]
      agencies: [tax]
  sign_on:
    oidc:
      issuer: https://issuer.example.org
      client_id: mc
    people:
      - person: 'Anna: A'
        subjects: [anna]
        roles: [viewer]
        agencies: [tax]
`
	if got = strings.ReplaceAll(got, filepath.Dir(cfg.Path), "DIR"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// What Show prints is a file that says the same, but for the tokens.
func TestShowCanBeLoaded(t *testing.T) {
	text := strings.Replace(full, "sha256: cd", "sha256: ab", 1)
	for _, onlyChanged := range []bool{false, true} {
		t.Run(fmt.Sprintf("onlyChanged=%v", onlyChanged), func(t *testing.T) {
			cfg := mustLoad(t, write(t, text), "REDIS=hunter2", "EXCHANGE=hunter3", "HOOK=hunter4", "PROBE=hunter8", "CANARY=hunter9", "PEER=hunter5-hunter5-hunter5-x", "LISTS=hunter6-hunter6-hunter6", "AD=hunter7")
			shown := Show(cfg, onlyChanged)
			shown = strings.Replace(shown, "sha256: abcdcdcd...", "sha256: ab"+strings.Repeat("cd", 31), 1)
			again := mustLoad(t, write(t, shown), "REDIS=hunter2", "EXCHANGE=hunter3", "HOOK=hunter4", "PROBE=hunter8", "CANARY=hunter9", "PEER=hunter5-hunter5-hunter5-x", "LISTS=hunter6-hunter6-hunter6", "AD=hunter7")
			if changes := Diff(cfg, again); len(changes) != 0 {
				t.Errorf("loading what was shown changes %v", changes)
			}
		})
	}
}

func TestShowNamesEveryKey(t *testing.T) {
	cfg := loadFull(t)
	var shown map[string]any
	if err := yaml.Unmarshal([]byte(Show(cfg, false)), &shown); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	flatten("", shown, got)
	for key := range allKeys() {
		// A secret is shown only where there is one, by one of its two keys.
		secret := strings.Contains(key, "password_") || strings.Contains(key, "hash_key_") || strings.Contains(key, "token_f") || strings.Contains(key, "token_e") || strings.Contains(key, "secret_") || strings.Contains(key, "identity.key_") || strings.Contains(key, "progress_key_")
		if strings.HasPrefix(key, "logins.autoconfig.servers[]") {
			continue // they need a listener with TLS, and so files
		}
		if !got[key] && !(secret && (strings.HasSuffix(key, "_file") || strings.HasSuffix(key, "_env"))) {
			t.Errorf("Show leaves out %s", key)
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	cfg := loadFull(t)
	s := cfg.Table.Redis.Password
	if s.Reveal() != "hunter2" {
		t.Fatalf("password is %q", s.Reveal())
	}
	marshalled, err := yaml.Marshal(map[string]any{"cfg": cfg, "secret": s})
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.Info("settings", "secret", s, "redis", cfg.Table.Redis, "endpoint", cfg.Platforms[0].Outside)
	for name, text := range map[string]string{
		"%v": fmt.Sprintf("%v %v", s, cfg.Table.Redis), "%+v": fmt.Sprintf("%+v", cfg.Platforms[0]), "%#v": fmt.Sprintf("%#v %#v", s, cfg.Platforms[0].Outside),
		"String": s.String(), "%q": fmt.Sprintf("%q", s), "yaml": string(marshalled), "slog": logged.String(),
		"show": Show(cfg, false), "diff": fmt.Sprint(Diff(cfg, Default())),
	} {
		if strings.Contains(text, "hunter") {
			t.Errorf("%s prints a password: %s", name, text)
		}
	}
}
