package redismodel

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/routing/redistable"
	"mailcutover/routing/table"
	"mailcutover/routing/table/tabletest"
)

// The model passes the suite that redis-server passes.
func TestTableContract(t *testing.T) {
	addr := serve(t)
	var n atomic.Int32
	open := func(t *testing.T, o redistable.Options) table.Table {
		t.Helper()
		tb, err := redistable.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tb.Close() })
		return tb
	}
	options := func() redistable.Options {
		return redistable.Options{URL: "redis://" + addr, AllowNoPassword: true, Timeout: 5 * time.Second, Prefix: fmt.Sprintf("test:{%d}", n.Add(1))}
	}
	prefixes := map[table.Table]redistable.Options{}
	fresh := func(t *testing.T, o redistable.Options) table.Table {
		tb := open(t, o)
		prefixes[tb] = o
		return tb
	}
	tabletest.Run(t, func(t *testing.T) table.Table { return fresh(t, options()) }, tabletest.Hooks{
		Reopen: func(t *testing.T, old table.Table) table.Table {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, prefixes[old])
		},
		OpenShort: func(t *testing.T, keep int) table.Table {
			o := options()
			o.LogLength = keep
			return fresh(t, o)
		},
	})
}
