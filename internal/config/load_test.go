package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected texts anew")

// configs is the directory of the example configurations.
const configs = "../../configs"

// Each folder of testdata/bad is a file of settings, perhaps with an environment, and
// all that Load says about it.
func TestBadConfigs(t *testing.T) {
	dirs, err := os.ReadDir("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) < 25 {
		t.Fatalf("%d folders in testdata/bad, want at least 25", len(dirs))
	}
	for _, dir := range dirs {
		t.Run(dir.Name(), func(t *testing.T) {
			folder := filepath.Join("testdata/bad", dir.Name())
			abs, err := filepath.Abs(folder)
			if err != nil {
				t.Fatal(err)
			}
			var env []string
			if b, err := os.ReadFile(filepath.Join(folder, "environment")); err == nil {
				env = strings.Split(strings.TrimSpace(string(b)), "\n")
			}
			// Git keeps no modes; secrets are private unless the folder is about that.
			for _, name := range []string{"private.password", "open.password"} {
				mode := os.FileMode(0o600)
				if strings.HasPrefix(name, "open") {
					mode = 0o644
				}
				if err := os.Chmod(filepath.Join(folder, name), mode); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			cfg, err := Load(filepath.Join(folder, "config.yaml"), env)
			if err == nil || cfg != nil {
				t.Fatalf("Load returned %v, %v; want nil and problems", cfg, err)
			}
			got := strings.ReplaceAll(err.Error(), abs, "DIR") + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret stands in the error: %s", got)
			}
			compare(t, filepath.Join(folder, "error.txt"), got)
		})
	}
}

// compare compares a text with the one kept in a file, or writes it there with -update.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if got != string(want) {
		t.Errorf("not as in %s; if that is meant, run the test with -update\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// write writes a file of settings for a test.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, path string, env ...string) *Config {
	t.Helper()
	cfg, err := Load(path, env)
	if err != nil {
		t.Fatalf("load %s:\n%v", path, err)
	}
	return cfg
}

func minimal(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(configs, "minimal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMinimalIsTenLines(t *testing.T) {
	if lines := strings.Count(minimal(t), "\n"); lines > 10 {
		t.Errorf("minimal.yaml has %d lines, want at most 10", lines)
	}
	cfg := mustLoad(t, filepath.Join(configs, "minimal.yaml"))
	want := DefaultListener()
	want.ID, want.Address = "mx", ":25"
	if !equal(valueOf(cfg).FieldByName("Listeners").Index(0), reflect.ValueOf(want)) {
		t.Errorf("listener is %+v, want %+v", cfg.Listeners[0], want)
	}
	if p := cfg.Platforms[1]; p.ID != "ox" || p.Outside.Protocol != ProtocolLMTP || p.Inside != nil || p.ConnectionLimit != 10*time.Minute {
		t.Errorf("platform is %+v", p)
	}
	if cfg.Table.Redis != nil || cfg.Admin.Address != "127.0.0.1:8025" {
		t.Errorf("table %+v, admin %+v; want the defaults", cfg.Table, cfg.Admin)
	}
	if len(cfg.Warnings) != 1 || cfg.Warnings[0].Key != "admin.tokens" {
		t.Errorf("warnings %v, want one about tokens", cfg.Warnings)
	}
}

func TestComposeLoads(t *testing.T) {
	cfg := mustLoad(t, filepath.Join(configs, "compose.yaml"), "REDIS_PASSWORD=hunter2", "MAILBOXES_PASSWORD=hunter3", "LIST_KEY=a key for the lists")
	r := cfg.Table.Redis
	if r == nil || r.URL != "redis://redis:6379/0" || r.Password.Reveal() != "hunter2" || r.Timeout != 250*time.Millisecond {
		t.Errorf("redis is %+v", r)
	}
	if cfg.Admin.Tokens[0].SHA256 != HashToken("try-out") {
		t.Error("the token is not the one that the comment says")
	}
	if w := cfg.Warnings; len(w) != 2 || w[0].Key != "platforms[source].mailboxes.tls.policy" || w[1].Key != "platforms[target].mailboxes.tls.policy" {
		t.Errorf("warnings %v, want two about certificates that are made up", w)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	_, err := Load("", nil)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("error is %v, want Problems", err)
	}
	var keys []string
	for _, p := range problems {
		keys = append(keys, p.Key)
	}
	if got, want := strings.Join(keys, " "), "node listeners platforms routing.postmaster"; got != want {
		t.Errorf("problems with %s, want %s", got, want)
	}
}

func TestUnreadableFile(t *testing.T) {
	for name, path := range map[string]string{
		"missing":   filepath.Join(t.TempDir(), "none.yaml"),
		"directory": t.TempDir(),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "a readable file") {
				t.Errorf("error is %v, want one about the file", err)
			}
		})
	}
	if _, err := Load(write(t, strings.Repeat("# comment\n", maxFileBytes/10+1)), nil); err == nil || !strings.Contains(err.Error(), "4MiB") {
		t.Errorf("error is %v, want one about the size", err)
	}
	if _, err := Load(write(t, "# nothing\n"), nil); err == nil || !strings.HasPrefix(err.Error(), "node: ") {
		t.Errorf("error of an empty file is %v, want one about missing keys", err)
	}
}

func TestEnvironment(t *testing.T) {
	path := write(t, minimal(t))
	cfg := mustLoad(t, path,
		"MAILCUTOVER_NODE=mx9.example.org",
		"MAILCUTOVER_LAB=true",
		"MAILCUTOVER_ROUTING_HOP_LIMIT=30",
		"MAILCUTOVER_LEASE_SETTLED=20m",
		"MAILCUTOVER_ROUTING_SEPARATOR=",
		"MAILCUTOVER_TABLE_REDIS_URL=redis://127.0.0.1:6379",
		"MAILCUTOVER_TABLE_REDIS_PASSWORD_ENV=MAILCUTOVER_REDIS_PASSWORD",
		"MAILCUTOVER_REDIS_PASSWORD=hunter2",
		"MAILCUTOVER_TOKEN=of the commands",
		"MAILCUTOVER_PORT_25_TCP_ADDR=of Kubernetes", "MAILCUTOVER_SERVICE_HOST=of Kubernetes", "MAILCUTOVER_PORT=of Kubernetes",
		"HOME=/root", "no equals sign")
	if cfg.Node != "mx9.example.org" || !cfg.Lab || cfg.Routing.HopLimit != 30 || cfg.Lease.Settled != 20*time.Minute || cfg.Routing.Separator != "" {
		t.Errorf("settings are %+v", cfg)
	}
	if r := cfg.Table.Redis; r == nil || r.Password.Reveal() != "hunter2" {
		t.Errorf("redis is %+v", r)
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	path := write(t, minimal(t))
	for name, key := range Variables() {
		cfg, err := Load(path, []string{name + "=\x01"})                                     // a value that hardly any key takes
		section := strings.TrimSuffix(key[:max(strings.LastIndexByte(key, '.'), 0)], ".tls") // without a URL its TLS isn't looked at
		switch {
		case err == nil && key == "data":
			if filepath.Base(cfg.Data) != "\x01" {
				t.Errorf("%s is not looked at", name)
			}
		case err == nil:
			t.Errorf("%s is not looked at", name)
		case !strings.Contains(err.Error(), key) && (section == "" || !strings.Contains(err.Error(), section)):
			t.Errorf("%s: error %q doesn't name %s", name, err, key)
		}
	}
	if n := len(Variables()); n < 25 {
		t.Errorf("%d variables, want at least 25", n)
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	file("good", "hunter2\n", 0o600)
	file("windows", "hunter2\r\n", 0o400)
	file("group", "hunter2", 0o640)
	file("world", "hunter2", 0o604)
	file("writable", "hunter2", 0o620)
	file("empty", "\n", 0o600)
	file("lines", "hunter2\nhunter3\n", 0o600)
	file("large", strings.Repeat("x", maxSecretBytes+1), 0o600)
	for _, c := range []struct {
		name, problem string
		warning       bool
	}{
		{name: "good"},
		{name: "windows"},
		{name: "group", warning: true},
		{name: "world", problem: "only its owner"},
		{name: "writable", problem: "only its owner"},
		{name: "empty", problem: "one line"},
		{name: "lines", problem: "one line"},
		{name: "large", problem: "one line"},
		{name: "missing", problem: "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Relative: the file stands beside the settings.
			path := filepath.Join(dir, c.name+".yaml")
			text := minimal(t) + "table: {redis: {url: 'unix:///run/redis', password_file: " + c.name + "}}\nadmin: {tokens: [{name: a, person: b, sha256: " + strings.Repeat("ab", 32) + "}]}\nlab: true\napproval: none\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := Load(path, nil)
			if c.problem != "" {
				var problems Problems
				if !errors.As(err, &problems) || len(problems) != 1 || !strings.Contains(err.Error(), c.problem) || problems[0].Key != "table.redis.password_file" {
					t.Fatalf("error is %v, want one with %q", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Table.Redis.Password.Reveal(); got != "hunter2" {
				t.Errorf("password is %q", got)
			}
			if got := len(cfg.Warnings) == 1; got != c.warning {
				t.Errorf("warnings are %v, want one: %v", cfg.Warnings, c.warning)
			}
		})
	}
}

// What is wrong with a key isn't said again by the checks that rest on it.
func TestNoFollowUps(t *testing.T) {
	text := strings.Replace(minimal(t), `":25"`, `":25", tls: {mod: starttls, cert_file: c, key_file: k}, limits: {idle: 30}`, 1)
	_, err := Load(write(t, text), nil)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 2 || problems[0].Key != "listeners[mx].tls.mod" || problems[1].Key != "listeners[mx].limits.idle" {
		t.Errorf("problems are\n%v\nwant one with tls.mod and one with limits.idle", err)
	}
}

func TestInsideIsLikeOutside(t *testing.T) {
	text := strings.Replace(minimal(t), `hosts: ["exchange.example.org:25"]}`, `hosts: ["exchange.example.org:25"], helo: a.example.org, limits: {connections: 7}}
    inside: {hosts: ["exchange.example.org:2525"], timeouts: {dot: 1m}}`, 1)
	cfg := mustLoad(t, write(t, text))
	p := &cfg.Platforms[0]
	in := p.Endpoint(OriginInside.Mail())
	if in.Helo != "a.example.org" || in.Limits.Connections != 7 || in.Timeouts.Dot != time.Minute || in.Hosts[0] != "exchange.example.org:2525" {
		t.Errorf("inside is %+v", in)
	}
	if out := p.Endpoint(OriginOutside.Mail()); out.Timeouts.Dot != 10*time.Minute || out.Hosts[0] != "exchange.example.org:25" {
		t.Errorf("outside is %+v", out)
	}
	if q := &cfg.Platforms[1]; q.Endpoint(OriginInside.Mail()) != &q.Outside {
		t.Error("a platform without inside has another endpoint for it")
	}
}
