package daemon

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

func TestTableAlarms(t *testing.T) {
	known := routing.Position{Incarnation: "i", Revision: 7}
	for name, c := range map[string]struct {
		status replica.Status
		want   map[string]string // alarm, and words of it
	}{
		"well":    {replica.Status{Open: true, Position: known}, nil},
		"flushed": {replica.Status{Position: known, Reason: "table is empty", Err: fmt.Errorf("follow: %w", table.ErrEmpty)}, map[string]string{"table-empty": "Don't fill it anew"}},
		"away":    {replica.Status{Reason: "not yet loaded", Err: errors.New("connection refused")}, map[string]string{"table-closed": "connection refused"}},
		"new":     {replica.Status{Reason: "table is empty", Err: table.ErrEmpty}, map[string]string{"table-closed": "table is empty"}},
		"regressed": {replica.Status{Open: true, Position: known, Regressed: []routing.AgencyID{"health"}, Missing: []routing.AgencyID{"police"}},
			map[string]string{"agency-regressed/health": "older than one", "mapping-missing/police": "not in the table"}},
	} {
		got := tableAlarms(c.status)
		if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(c.want))) {
			t.Errorf("%s: %q", name, got)
		}
		for key, words := range c.want {
			if !strings.Contains(got[key], words) {
				t.Errorf("%s: %s says %q, want %q in it", name, key, got[key], words)
			}
		}
	}
}

// raised reports whether an alarm is raised whose text has these words.
func (b *bench) raised(key, words string) bool {
	return slices.ContainsFunc(b.alarms.List(), func(a alarm.Alarm) bool { return a.Key == key && strings.Contains(a.Text, words) })
}

// What is wrong with the table is told also by a node that starts then.
func TestATableThatIsNotWellAtTheStart(t *testing.T) {
	redis := peers.StartRedis(t, peers.RedisOptions{})
	settings := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true}}", redis.URL())
	b := newBenchWith(t, settings)
	b.stop(b.Daemon)
	redis.CLI(t, "FLUSHALL")
	b.start()
	b.until("an alarm that doesn't invite to fill it anew", func() bool { return b.raised("table-empty", "Don't fill it anew") })

	away := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines), a: b.a, b: b.b}
	away.write(b.a.Addr(), fmt.Sprintf("table: {redis: {url: \"redis://127.0.0.1:%d\", allow_no_password: true}}", peers.Port(t)))
	away.start()
	away.until("an alarm that says why", func() bool { return away.raised("table-closed", "connection refused") })
}

// A table that is flushed while the node runs has an alarm, and no answer invites to fill
// it anew.
func TestFlushedTable(t *testing.T) {
	redis := peers.StartRedis(t, peers.RedisOptions{})
	b := newBenchWith(t, fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true}}", redis.URL()))
	redis.CLI(t, "FLUSHALL")
	b.until("an alarm", func() bool { return b.raised("table-empty", "") })
	_, err := b.api.AddAgency(t.Context(), admin.NewAgency{ID: "police", Source: "exchange", Target: "ox", Reason: "test"})
	var p *admin.Problem
	if !errors.As(err, &p) || p.Status != 503 || strings.Contains(p.Hint+p.Detail, "initialis") {
		t.Errorf("add an agency: %+v, %v", p, err)
	}
}
