package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/audit"
	"mailcutover/audit/checkpoint"
)

// The node signs its audit log after some records, when it is asked and when it stops; the table has
// the checkpoints, the log holds against them, and one that was written anew doesn't.
func TestCheckpoints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := newSigningKey(t, filepath.Join(dir, "first"), nil)
	signed := func(key string) string {
		return "audit: {signing_key_file: " + key + ", checkpoint_records: 2}\n"
	}
	b := newBenchWith(t, signed(filepath.Join(dir, "first"))) // which makes records
	count := func() int {
		all, err := b.api.AuditCheckpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	b.until("a checkpoint in the table", func() bool { return count() > 0 })
	asked, err := b.api.SignAudit(t.Context())
	if err != nil || asked.Record < 2 || asked.Node != "mx1.example" || asked.Key != string(first.ID()) {
		t.Fatalf("%+v, %v", asked, err)
	}
	second := newSigningKey(t, filepath.Join(dir, "second"), first)
	b.write(b.a.Addr(), signed(filepath.Join(dir, "second")))
	if _, err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.Arm(t.Context(), "health", "1.1", "soon"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(filepath.Dir(b.path), "data")
	text, err := os.ReadFile(filepath.Join(data, "audit-checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := checkpoint.Read(bytes.NewReader(text))
	if err != nil || all[len(all)-1].Key != second.ID() {
		t.Fatalf("%v, %+v", err, all)
	}
	e := checkpoint.Evidence{Keys: []ed25519.PublicKey{first.Public()}, Checkpoints: all}
	held := func() (checkpoint.Result, error) {
		return checkpoint.Verify(e, func(heads ...audit.Head) (audit.Report, error) {
			return audit.VerifyDir(nil, filepath.Join(data, "audit"), nil, heads...)
		})
	}
	r, err := held()
	if err != nil || r.Record != r.Head.Number || r.Checkpoints != len(all) || len(r.Keys) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	b.start()
	// The last one came into the table when the node stopped, or comes if that took over a second.
	b.until("as many checkpoints in the table as in the file", func() bool { return count() == len(all) })
	b.stop(b.Daemon)
	if err := os.RemoveAll(filepath.Join(data, "audit")); err != nil {
		t.Fatal(err)
	}
	b.start()
	if !strings.Contains(b.alarm("audit-checkpoint-mismatch"), "not the one that was signed") {
		t.Errorf("alarms: %+v", b.alarms.List())
	}
	if _, err := held(); err == nil {
		t.Error("a log that is gone holds")
	} else if m, ok := errors.AsType[*checkpoint.Mismatch](err); !ok || m.To != r.Head.Number {
		t.Errorf("%v", err)
	}
}

func newSigningKey(t *testing.T, path string, before *checkpoint.Key) *checkpoint.Key {
	t.Helper()
	k, err := checkpoint.NewKey(before)
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}
