package config

import (
	"reflect"
	"strings"
	"testing"
)

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
		{`tokens: [{name: a`, `tokens: [{name: b`},
		{`places: [{platform: ox, login`, `places: [{platform: cloud, login`},
		{`bases: ["ou=tax,`, `bases: ["ou=taxes,`},
		{`suffix: agency.example`, `suffix: other.example`},
		{`"exchange.example.org:587"`, `"exchange.example.org:588"`},
	} {
		if !strings.Contains(text, r.old) {
			t.Fatalf("%s is not in the text", r.old)
		}
		text = strings.Replace(text, r.old, r.new, 1)
	}
	a := loadFull(t)
	b := mustLoad(t, write(t, text+"log: {level: debug}\n"), "REDIS=hunter4", "EXCHANGE=hunter3", "HOOK=hunter4", "PROBE=hunter8", "CANARY=hunter9", "PEER=hunter5-hunter5-hunter5-x",
		"LISTS=hunter6-hunter6-hunter6", "AD=hunter7")
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
		"logins.domains[MAIL].suffix: agency.example -> other.example (needs a restart)",
		"platforms[exchange].outside.hosts: [exchange.example.org:25] -> [exchange2.example.org:25]",
		"platforms[exchange].inside.hosts: [exchange.example.org:25] -> [exchange2.example.org:25]",
		"platforms[exchange].submission.hosts: [exchange.example.org:587] -> [exchange.example.org:588]",
		"platforms[ox]: present -> none",
		"platforms[cloud]: none -> present",
		"routing.separator: none -> - (needs a restart)",
		"identity.agencies[tax].bases: [ou=tax,dc=example,dc=org] -> [ou=taxes,dc=example,dc=org]",
		"identity.places[ox]: present -> none",
		"identity.places[cloud]: none -> present",
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
