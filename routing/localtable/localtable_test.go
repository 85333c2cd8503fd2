package localtable

import (
	"path/filepath"
	"testing"

	"mailcutover/routing/table"
	"mailcutover/routing/table/tabletest"
)

func open(t *testing.T, path string, o Options) *Table {
	t.Helper()
	tb, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tb.Close(); err != nil {
			t.Error(err)
		}
	})
	return tb
}

func TestContract(t *testing.T) {
	fresh := func(t *testing.T, o Options) table.Table {
		return open(t, filepath.Join(t.TempDir(), "table.db"), o)
	}
	tabletest.Run(t, func(t *testing.T) table.Table { return fresh(t, Options{}) }, tabletest.Hooks{
		Reopen: func(t *testing.T, old table.Table) table.Table {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, old.(*Table).path, Options{})
		},
		Restart: func(t *testing.T, old table.Table) table.Table {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, old.(*Table).path, Options{})
		},
		OpenShort: func(t *testing.T, keep int) table.Table { return fresh(t, Options{LogLength: keep}) },
	})
}
