package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/internal/seal"
	"mailcutover/ledger/retained"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// What goes to the target is retained, encrypted as configured, over a restart, until the agency is
// finalised; what goes to the source isn't.
func TestRetained(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "disk.keys")
	if err := os.WriteFile(keys, []byte(seal.NewKey("one")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBenchWith(t, "encryption: {key_file: "+keys+"}")
	copies := func(want int) {
		t.Helper()
		st := b.retained.Status()
		if st.Copies != want || st.Err != nil || st.Key != "one" {
			t.Errorf("status is %+v, want %d copies", st, want)
		}
	}
	b.send(b.a)
	copies(0)
	b.arm()
	if _, err := b.operate(operation.Cutover); err != nil {
		t.Fatal(err)
	}
	b.send(b.b)
	copies(1)
	b.stop(b.Daemon)
	b.start()
	copies(1)
	b.send(b.b)
	copies(2)
	act := control.Act{ID: "finalise", Who: "tester", Reason: "test"}
	if _, err := b.control.Finalise(t.Context(), act, []routing.AgencyID{"health"}); err != nil {
		t.Fatal(err)
	}
	b.until("the copies are gone", func() bool {
		b.retained.Upkeep() // by itself within half a minute
		return b.retained.Status().Copies == 0
	})
	if gone := b.retained.Agency("health").Removed; gone.Copies != 2 || gone.Reason != retained.ReasonFinalised {
		t.Errorf("removed are %+v", gone)
	}
	left, err := os.ReadDir(filepath.Join(filepath.Dir(b.path), "data", "retained"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if strings.HasPrefix(f.Name(), "health.") {
			t.Errorf("%s is left", f.Name())
		}
	}
	b.send(b.b)
	copies(0)
}
