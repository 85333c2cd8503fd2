package redistable

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func FuzzDecodeRecord(f *testing.F) {
	f.Add(`7 - {"id":"health","source":"a","target":"b","phase":"source","epoch":"1.2","nonce":"00000000000000ff"}`)
	f.Add(`7 {"name":"a.example","complete":true}`)
	f.Add(`7 {"address":"a@b.example","kind":"group"}`)
	f.Add(`18446744073709551616 - {}`)
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := decodeAgency(s); err == nil {
			again := reencode(t, table.Change{Agencies: []routing.Agency{a}})
			digest := noMapping
			if !a.Mapping.IsZero() {
				digest = a.Mapping.String()
			}
			if b, err := decodeAgency(revisionText(a.Revision) + " " + digest + " " + string(again.agencies[0])); err != nil || b != a {
				t.Errorf("%+v became %+v, %v", a, b, err)
			}
		}
		if d, err := decodeDomain(s); err == nil && !d.Removed {
			if e, err := decodeDomain(revisionText(d.Revision) + " " + string(reencode(t, table.Change{Domains: []routing.Domain{d}}).domains[0])); err != nil || e != d {
				t.Errorf("%+v became %+v, %v", d, e, err)
			}
		}
		if d, err := decodeFixed(s); err == nil && !d.Removed {
			if e, err := decodeFixed(revisionText(d.Revision) + " " + string(reencode(t, table.Change{Fixed: []routing.Fixed{d}}).fixed[0])); err != nil || e != d {
				t.Errorf("%+v became %+v, %v", d, e, err)
			}
		}
	})
}

func revisionText(r routing.Revision) string {
	b, _ := json.Marshal(r)
	return string(b)
}

func reencode(t *testing.T, c table.Change) *records {
	t.Helper()
	r, err := encodeRecords(&c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add("7-0", "3", "1700000000 000123", `{"agencies":[{"id":"health","phase":"source","epoch":"1.1","nonce":"0000000000000000"}],"domains":[{"name":"a"}]}`)
	f.Add("7-1", "", "", "")
	f.Fuzz(func(t *testing.T, id, mapped, clock, records string) {
		m := redis.XMessage{ID: id, Values: map[string]any{"incarnation": "x", "mapped": mapped, "time": clock, "records": records}}
		e, err := decodeEntry(m)
		if err != nil {
			if !reflect.DeepEqual(e.Agencies, []routing.Agency(nil)) {
				t.Errorf("records beside an error: %+v", e)
			}
			return
		}
		for _, a := range e.Agencies {
			if a.Revision != e.Position.Revision {
				t.Errorf("agency %s: revision %d in entry %d", a.ID, a.Revision, e.Position.Revision)
			}
		}
	})
}

// Redis 7.2 and later confirm that the append-only file has it, too.
func TestConfirmAsksForTheDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(c *server.Peer)
		want   bool
	}{
		"on disk":     {func(c *server.Peer) { c.WriteLen(2); c.WriteInt(1); c.WriteInt(1) }, true},
		"not on disk": {func(c *server.Peer) { c.WriteLen(2); c.WriteInt(0); c.WriteInt(1) }, false},
		"no replica":  {func(c *server.Peer) { c.WriteLen(2); c.WriteInt(1); c.WriteInt(0) }, false},
		"no file": {func(c *server.Peer) {
			c.WriteError("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
		}, false},
		"lacks a right": {func(c *server.Peer) { c.WriteError("NOPERM this user has no permissions to run the 'waitaof' command") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMini(t)
			if err := m.Server().Register("WAITAOF", func(c *server.Peer, _ string, args []string) {
				if len(args) != 3 || args[0] != "1" || args[1] != "1" {
					t.Errorf("WAITAOF %v", args)
				}
				tt.answer(c)
			}); err != nil {
				t.Fatal(err)
			}
			err := open(t, Options{URL: "redis://" + m.Addr(), Replicas: 1}).Confirm(t.Context())
			if tt.want && err != nil {
				t.Errorf("Confirm: %v", err)
			} else if !tt.want {
				unavailable(t, "Confirm", err, "")
			}
		})
	}
}

// What anybody wrote into Redis in the place of what nodes say of themselves is read or refused.
func FuzzDecodeNodes(f *testing.F) {
	f.Add("7 instance active 1 - 0 2026-01-02T03:04:05Z 1 - {\"node\":\"mx1\"}")
	f.Add("instance 1 2 3 4 5 6 7 8 1 0 - {}")
	f.Add("7 done {\"id\":\"x\"}")
	f.Add("7 null")
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := decodeLease("mx1", s); err == nil && l.Node != "mx1" {
			t.Fatalf("a lease of %s", l.Node)
		}
		_, _ = decodeMember(s)
		_, _ = decodeOperation(s)
		_, _ = decodeFreeze(s)
		_, _ = decodeDocument(s)
	})
}
