package deliver

import (
	"bytes"
	"io"
	"testing"
	"time"

	"mailcutover/ledger/retained"
	"mailcutover/routing"
	"mailcutover/spool"
)

// What is delivered from the spool to the target is retained, before the spool forgets it; what
// goes to the source isn't.
func TestReplayIsRetained(t *testing.T) {
	_, ox, _, endpoints := platforms(t)
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer w.close()
	store, err := retained.Open(retained.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	o := w.sender.settings.Load().Options
	o.Retained = store
	w.sender.Configure(o)
	w.put(spool.StateHeld, content, 1)
	w.run()
	w.wait("the first is delivered", w.empty)
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseToTarget })
	second := w.put(spool.StateHeld, content, 1, 2)
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseTarget })
	w.wait("the second is delivered", w.empty)
	n := 0
	for c, err := range store.Find(t.Context(), retained.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		n += len(c.Recipients)
		b, err := store.Open(&c)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		got, err := io.ReadAll(b)
		if c.Transaction != second || c.Platform != "ox" || err != nil || !bytes.Equal(got, []byte(content)) {
			t.Errorf("copy %+v with %q, %v", c, got, err)
		}
	}
	if n != 2 {
		t.Errorf("copies for %d recipients, want 2; ox has %d messages", n, len(ox.Stored()))
	}
}
