package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"mailcutover/internal/platformtest"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/rollback/hook"
)

// allKeys returns every key of a file, with "[]" for the items of lists, and its
// default as text. What may be left out as a whole and then is like a sibling is one key.
func allKeys() map[string]string {
	all := make(map[string]string)
	collectKeys("", valueOf(Default()), all)
	return all
}

func collectKeys(section string, v reflect.Value, all map[string]string) {
	for f := range fields(v.Type()) {
		key := join(section, f.key)
		fv := v.FieldByIndex(f.Index)
		t := f.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
			fv = defaultOf(t)
		}
		switch {
		case f.Tag.Get("like") != "", f.Tag.Get("as") != "":
			all[key] = ""
		case t == secretType:
			all[key+"_file"], all[key+"_env"] = "", ""
		case t == hashType:
			all[key] = ""
		case isSection(t):
			collectKeys(key, fv, all)
		case t.Kind() == reflect.Slice && isSection(t.Elem()):
			collectKeys(key+"[]", defaultOf(t.Elem()), all)
		default:
			all[key] = text(fv)
		}
	}
}

// restartKeys returns the tag "restart" of every key, that of its section included.
func restartKeys() map[string]string {
	all := make(map[string]string)
	collectRestart("", reflect.TypeFor[Config](), "", all)
	return all
}

func collectRestart(section string, t reflect.Type, inherited string, all map[string]string) {
	for f := range fields(t) {
		key, tag, ft := join(section, f.key), f.Tag.Get("restart"), f.Type
		if inherited != "" {
			tag = inherited
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch {
		case f.Tag.Get("like") != "", f.Tag.Get("as") != "":
		case ft == secretType:
			all[key+"_file"], all[key+"_env"] = tag, tag
		case isSection(ft):
			collectRestart(key, ft, tag, all)
		case ft.Kind() == reflect.Slice && isSection(ft.Elem()):
			collectRestart(key+"[]", ft.Elem(), tag, all)
		default:
			all[key] = tag
		}
	}
}

// flatten collects the keys of a file.
func flatten(section string, in any, into map[string]bool) {
	switch v := in.(type) {
	case map[string]any:
		for k, sub := range v {
			key := join(section, k)
			into[key] = true
			if !repeats.MatchString(key + ".") {
				flatten(key, sub, into)
			}
		}
	case []any:
		for _, item := range v {
			flatten(section+"[]", item, into)
		}
	}
}

// repeats matches the keys in sections that have those of another one.
var repeats = regexp.MustCompile(`^platforms\[\]\.(inside|submission|pop3|sieve|hooks\.(open|forward_on|forward_off))\.`)

// entry is a key of the example file.
type entry struct {
	key     string
	value   string // as it stands there
	out     bool   // commented out
	comment string // the lines before it
	section bool
}

var settingLine = regexp.MustCompile(`^(\s*)(#?)(- )?([a-z_0-9]+):(?: (.*))?$`)

// readExample reads the example file line by line: comments, keys and keys that are
// commented out.
func readExample(t *testing.T) []entry {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(configs, "mailcutover.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	type open struct {
		indent int
		key    string
	}
	var (
		stack    []open
		comments []string
		entries  []entry
	)
	for n, line := range strings.Split(string(b), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "":
			comments = nil
			continue
		case trimmed == "#" || strings.HasPrefix(trimmed, "# "):
			comments = append(comments, strings.TrimSpace(trimmed[1:]))
			continue
		}
		m := settingLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("line %d is neither a comment nor a setting: %s", n+1, line)
		}
		indent := len(m[1])
		if m[3] != "" {
			indent += 2 // "- " begins an item: its keys stand two columns further
		}
		for len(stack) > 0 && stack[len(stack)-1].indent >= indent {
			stack = stack[:len(stack)-1]
		}
		section := ""
		if len(stack) > 0 {
			section = stack[len(stack)-1].key
		}
		key := join(section, m[4])
		e := entry{key: key, value: m[5], out: m[2] != "", comment: strings.Join(comments, " ")}
		comments = nil
		if m[5] == "" {
			e.section = true
			if slices.Contains([]string{"listeners", "platforms", "tokens", "domains", "servers", "directories", "agencies", "places", "coexistence", "homes", "folders", "canaries", "people", "webhooks", "mail"}, m[4]) {
				key += "[]"
			}
			stack = append(stack, open{indent, key})
		}
		entries = append(entries, e)
	}
	return entries
}

// exampleOf are keys that have no default, or none that would be a good example.
var exampleOf = []string{"node", "listeners[].id", "listeners[].address", "platforms[].id", "platforms[].outside.hosts", "routing.postmaster",
	"table.redis.sentinel.addresses", "platforms[].hooks.close.command",
	"logins.listeners[].id", "logins.listeners[].protocol", "logins.listeners[].address", "platforms[].imap.hosts", "logins.autoconfig.servers[].port", "admin.tokens[].roles", "admin.tokens[].agencies", "admin.sign_on.people[].roles", "admin.sign_on.people[].agencies", "admin.sign_on.people[].subjects", "admin.sign_on.people[].certificates",
	"identity.directories[].servers", "identity.agencies[].bases", "identity.coexistence[].patterns",
	"recall.folders[].role", "recall.folders[].names", "platforms[].mailboxes.auth.user",
	"notices.webhooks[].events", "notices.webhooks[].agencies", "notices.mail[].to", "notices.mail[].events", "notices.mail[].agencies", "notices.mail[].tls.pins"}

// The example file has every key, each with a comment and its default.
func TestExampleIsComplete(t *testing.T) {
	all := allKeys()
	seen := make(map[string]bool)
	second := false // the second platform only shows how little is needed
	for _, e := range readExample(t) {
		if second = second && strings.HasPrefix(e.key, "platforms[]"); second {
			continue
		}
		if e.key == "platforms[].id" && seen[e.key] {
			second = true
			continue
		}
		if repeats.MatchString(e.key) {
			continue
		}
		if seen[e.key] {
			t.Errorf("%s is there twice", e.key)
		}
		seen[e.key] = true
		if e.comment == "" && !e.section {
			t.Errorf("%s has no comment", e.key)
		}
		fallback, known := all[e.key]
		if !known {
			if !e.section {
				t.Errorf("%s is no key", e.key)
			}
			continue
		}
		var value any
		if err := yaml.Unmarshal([]byte(e.value), &value); err != nil {
			t.Errorf("%s: %v", e.key, err)
		}
		shown := ""
		if value != nil {
			shown = fmt.Sprint(value)
		}
		if !slices.Contains(exampleOf, e.key) && shown != fallback && !(e.out && fallback == "") {
			t.Errorf("%s shows %q, the default is %q", e.key, shown, fallback)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !seen[key] {
			t.Errorf("%s is missing in the example", key)
		}
	}
}

// As it stands, the example changes nothing but what has no default.
func TestExampleIsDefault(t *testing.T) {
	cfg := mustLoad(t, filepath.Join(configs, "mailcutover.example.yaml"))
	want := `node: mx1.example.org
listeners:
  - id: mx
    address: :25
platforms:
  - id: exchange
    outside:
      hosts: ['exchange1.example.org:25', 'exchange2.example.org:25']
  - id: ox
    outside:
      protocol: lmtp
      hosts: ['dovecot.example.org:24']
routing:
  postmaster: postmaster@example.org
`
	if got := Show(cfg, true); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// What is commented out is right too: with it all, only the files are missing.
func TestExampleCommentedOut(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(configs, "mailcutover.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _, err := ca.WriteFiles(t.TempDir(), "mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^(\s*)#(\S)`).ReplaceAllString(string(b), "$1$2")
	text = regexp.MustCompile(`(?m)^\s*(password|hash_key|secret|former_secret|progress_key|client_secret)_file:.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^(\s*)(ca|cert|key)_file:.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^\s*token_(file|env):.*\n`).ReplaceAllString(text, "")        // a token goes with a URL
	text = regexp.MustCompile(`(?m)^\s*relay: relay.example.org.*\n`).ReplaceAllString(text, "") // there is a platform
	text = regexp.MustCompile(`/etc/mailcutover/hooks/\w+`).ReplaceAllString(text, "/bin/true")
	text = strings.Replace(text, "mechanism: none", "mechanism: plain", 1)
	text = strings.Replace(text, "policy: opportunistic", "policy: verified", 1)
	text = strings.Replace(text, `username: ""`, "username: mailcutover", 1)
	text = strings.Replace(text, "sha256: 00", `sha256: ab`, 1)
	text = strings.Replace(text, "# Take no credentials", "cert_file: "+cert+"\n        key_file: "+key+"\n        # Take no credentials", 1)
	text = strings.Replace(text, "# host:port. \"\": off.\n    address: \"\"", "address: 127.0.0.1:8080", 1)
	text = strings.Replace(text, `["dovecot.example.org:24"]`, `["dovecot.example.org:24"]`+"\n    imap:\n      hosts: [\"dovecot.example.org:143\"]", 1)
	text = strings.Replace(text, "page:\n  # host:port. \"\": there is none.\n  address: \"\"", "page:\n  address: 127.0.0.1:8026", 1)
	text = strings.Replace(text, "issuer: \"\"\n      # The id under which the issuer knows mailcutover.\n      client_id: \"\"", "issuer: https://issuer.example.org\n      client_id: mailcutover", 1)
	cfg := mustLoad(t, write(t, text), "REDIS_PASSWORD=a", "EXCHANGE_PASSWORD=b", "PROGRESS_KEY=sixteen characters", "OIDC_SECRET=g", "LEDGER_KEY=sixteen characters", "SENTINEL_PASSWORD=c", "PEER_SECRET=sixteen characters",
		"LIST_KEY=sixteen characters", "AD_PASSWORD=d", "PROBE_PASSWORD=e", "CANARY_PASSWORD=f",
		"MAILBOXES_PASSWORD=h", "CLIENT_SECRET=i", "WEBHOOK_SECRET=twenty-four characters or more", "WEBHOOK_OLD_SECRET=twenty-four characters or more")
	if r := cfg.Table.Redis; r == nil || r.Username != "mailcutover" || r.Password.Reveal() != "a" || r.Timeout != DefaultRedis().Timeout {
		t.Errorf("redis is %+v", r)
	}
	if p := cfg.Platforms[0]; p.Inside == nil || p.Inside.Hosts[0] != "exchange1.example.org:2525" || p.Inside.Auth.Password.Reveal() != "b" {
		t.Errorf("inside is %+v", p.Inside)
	}
	for kind, h := range cfg.Platforms[0].Hooks.All() {
		if len(h.Command) == 0 || h.Timeout != hook.DefaultTimeout || h.Attempts != hook.DefaultAttempts || h.Pause != hook.DefaultPause {
			t.Errorf("hook %s is %+v", kind, h)
		}
	}
	l := cfg.Logins.Listeners
	if len(l) != 1 || l[0].Protocol != LoginIMAP || l[0].Limits != DefaultLoginListener().Limits || len(cfg.Logins.Autoconfig.Servers) != 1 || cfg.Admin.Peer.Secret.Reveal() == "" {
		t.Errorf("logins are %+v, peer is %+v", cfg.Logins, cfg.Admin.Peer)
	}
	for _, protocol := range LoginProtocols {
		if e := cfg.Platforms[0].Login(protocol); e == nil || len(e.Hosts) != 1 || e.TLS.Policy != LoginTLSVerified || e.Timeouts != DefaultLoginEndpoint().Timeouts {
			t.Errorf("endpoint for %s is %+v", protocol, e)
		}
	}
	if i := &cfg.Identity; len(i.Directories) != 1 || len(i.Agencies) != 1 || i.Key.Reveal() == "" || i.Directories[0].Bind.Password.Reveal() != "d" {
		t.Errorf("identity is %+v", i)
	}
	if len(cfg.Admin.Tokens) != 1 || len(cfg.Warnings) != 1 || cfg.Warnings[0].Key != "admin.tokens" { // one person can't approve
		t.Errorf("tokens %v, warnings %v", cfg.Admin.Tokens, cfg.Warnings)
	}
}

// The sections named after types of other packages have the same names and defaults.
func TestLimitsAreThoseOfTheParts(t *testing.T) {
	endpoint := DefaultEndpoint()
	for name, c := range map[string]struct {
		ours, theirs any
		elsewhere    string // a field that has its key in another place
	}{
		"smtp.Limits":    {DefaultListener().Limits, smtp.DefaultOptions().Limits, ""},
		"relay.Limits":   {endpoint.Limits, relay.Limits{}, "PlatformLimit"},
		"relay.Timeouts": {endpoint.Timeouts, relay.Timeouts{}, ""},
	} {
		ours, theirs := reflect.ValueOf(c.ours), reflect.ValueOf(c.theirs)
		for i := range theirs.NumField() {
			f := theirs.Type().Field(i)
			if f.Name == c.elsewhere {
				continue
			}
			v := ours.FieldByName(f.Name)
			if !v.IsValid() {
				t.Errorf("%s.%s has no key", name, f.Name)
			} else if name == "smtp.Limits" && v.Int() != theirs.Field(i).Int() {
				t.Errorf("%s.%s is %v by default, its key %v", name, f.Name, theirs.Field(i), v)
			}
		}
		for i := range ours.NumField() {
			if f := ours.Type().Field(i); !theirs.FieldByName(f.Name).IsValid() {
				t.Errorf("key %s has no field in %s", f.Tag.Get("config"), name)
			}
		}
	}
}
