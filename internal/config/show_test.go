package config

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
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
platforms:
  - id: exchange
    connection_limit: 2m
    outside:
      hosts: ["exchange.example.org:25"]
      tls: {policy: verified, pins: ["sha256:abababababababababababababababababababababababababababababababab"]}
      auth: {mechanism: plain, username: "12", password_env: EXCHANGE}
    inside: {helo: inside.example.org}
  - id: ox
    outside: {protocol: lmtp, hosts: ["dovecot.example.org:24"]}
routing: {postmaster: postmaster@example.org, separator: ""}
admin: {tokens: [{name: a, person: "Anna: A", sha256: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd}]}
`

func loadFull(t *testing.T) *Config {
	t.Helper()
	return mustLoad(t, write(t, full), "REDIS=hunter2", "EXCHANGE=hunter3")
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
  - id: ox
    outside:
      protocol: lmtp
      hosts: ['dovecot.example.org:24']
routing:
  separator: ""
  postmaster: postmaster@example.org
admin:
  tokens:
    - name: a
      person: 'Anna: A'
      sha256: cdcdcdcd...
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
			cfg := mustLoad(t, write(t, text), "REDIS=hunter2", "EXCHANGE=hunter3")
			shown := Show(cfg, onlyChanged)
			shown = strings.Replace(shown, "sha256: abcdcdcd...", "sha256: ab"+strings.Repeat("cd", 31), 1)
			again := mustLoad(t, write(t, shown), "REDIS=hunter2", "EXCHANGE=hunter3")
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
		// A password is shown only where there is one, by one of its two keys.
		if !got[key] && !strings.HasSuffix(key, ".password_file") && !strings.HasSuffix(key, ".password_env") {
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
		"%s": fmt.Sprintf("%s", s), "%q": fmt.Sprintf("%q", s), "yaml": string(marshalled), "slog": logged.String(),
		"show": Show(cfg, false), "diff": fmt.Sprint(Diff(cfg, Default())),
	} {
		if strings.Contains(text, "hunter") {
			t.Errorf("%s prints a password: %s", name, text)
		}
	}
}

func TestDiff(t *testing.T) {
	text := full
	for _, r := range []struct{ old, new string }{
		{`address: ":24"`, `address: ":2424"`},
		{`idle: 90s`, `idle: 80s`},
		{`data: state`, `data: other`},
		{`redis.example.org/1`, `redis.example.org/2`},
		{`"exchange.example.org:25"`, `"exchange2.example.org:25"`},
		{`[10.0.0.0/8, 192.0.2.7]`, `[10.0.0.0/8]`},
		{`  - id: ox`, `  - id: cloud`},
		{`separator: ""`, `separator: "-"`},
		{`name: a`, `name: b`},
	} {
		if !strings.Contains(text, r.old) {
			t.Fatalf("%s is not in the text", r.old)
		}
		text = strings.Replace(text, r.old, r.new, 1)
	}
	a := loadFull(t)
	b := mustLoad(t, write(t, text+"log: {level: debug}\n"), "REDIS=hunter4", "EXCHANGE=hunter3")
	a.Data, b.Data = "state", "other" // the files stand in different directories
	var got []string
	for _, c := range Diff(a, b) {
		got = append(got, c.String())
	}
	want := []string{
		"data: state -> other (needs a restart)",
		"table.redis.url: rediss://redis.example.org/1 -> rediss://redis.example.org/2 (needs a restart)",
		"table.redis.password: variable REDIS -> variable REDIS (another content) (needs a restart)",
		"listeners[mx].inside_nets: [10.0.0.0/8 192.0.2.7/32] -> [10.0.0.0/8] (needs a restart)",
		"listeners[mx].limits.idle: 1m30s -> 1m20s (needs a restart)",
		"listeners[lmtp].address: :24 -> :2424 (needs a restart)",
		"platforms[exchange].outside.hosts: [exchange.example.org:25] -> [exchange2.example.org:25]",
		"platforms[exchange].inside.hosts: [exchange.example.org:25] -> [exchange2.example.org:25]",
		"platforms[ox]: present -> none",
		"platforms[cloud]: none -> present",
		"routing.separator: none -> - (needs a restart)",
		"admin.tokens[a]: present -> none",
		"admin.tokens[b]: none -> present",
		"log.level: info -> debug",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if changes := Diff(a, a); len(changes) != 0 {
		t.Errorf("a Config differs from itself in %v", changes)
	}
	a.Admin.TLS.CertFile, b.Admin.TLS.CertFile = "a.pem", "b.pem"
	a.Admin.TLS.KeyFile, b.Admin.TLS.KeyFile = "a.key", ""
	for _, c := range Diff(a, b) {
		if want := c.Key == "admin.tls.key_file"; strings.HasPrefix(c.Key, "admin.tls.") && c.Restart != want {
			t.Errorf("change is %+v: only what is given or taken away needs a restart", c)
		}
	}
	a.Table.Redis, b.Table.Redis = nil, &Redis{}
	if c := Diff(a, b)[1]; c != (Change{Key: "table.redis", New: "present", Restart: true}) {
		t.Errorf("change is %+v", c)
	}
}
