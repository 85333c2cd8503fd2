package redistable

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"mailcutover/routing/table"
	"mailcutover/routing/table/tabletest"
	"mailcutover/test/peers"
)

// open opens a table, which the test's end closes.
func open(t testing.TB, o Options) *Table {
	t.Helper()
	if o.Password == "" && !strings.Contains(o.URL, "@") {
		o.AllowNoPassword = true
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second // a busy machine is not what most tests are about
	}
	tb, err := Open(t.Context(), o)
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

// contract runs the suite against a server; each table has a prefix of its own.
func contract(t *testing.T, o Options) {
	var n atomic.Int32
	fresh := func(t *testing.T, o Options) table.Table {
		o.Prefix = fmt.Sprintf("test:{%d}", n.Add(1))
		return open(t, o)
	}
	tabletest.Run(t, func(t *testing.T) table.Table { return fresh(t, o) }, tabletest.Hooks{
		Reopen: func(t *testing.T, old table.Table) table.Table {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, old.(*Table).o)
		},
		OpenShort: func(t *testing.T, keep int) table.Table {
			o := o
			o.LogLength = keep
			return fresh(t, o)
		},
	})
}

// startMini starts a miniredis, which lacks ROLE.
func startMini(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.RunT(t)
	err := m.Server().Register("ROLE", func(c *server.Peer, cmd string, args []string) {
		c.WriteLen(3)
		c.WriteBulk("master")
		c.WriteInt(0)
		c.WriteLen(0)
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
		if strings.EqualFold(cmd, "INFO") {
			c.WriteBulk("run_id:" + strings.Repeat("a", 40) + "\r\nmaster_replid:" + strings.Repeat("b", 40) + "\r\nmaster_replid2:" + strings.Repeat("0", 40) + "\r\n")
			return true
		}
		return false
	})
	return m
}

func TestContractOnMiniredis(t *testing.T) {
	contract(t, Options{URL: "redis://" + startMini(t).Addr()})
}

// The whole suite passes with the rights of configs/redis/users.acl.
func TestContractOnRedis(t *testing.T) {
	r := peers.StartRedis(t, peers.RedisOptions{ACL: users(t, "~test:*")})
	contract(t, Options{URL: "redis://" + r.Addr, Username: "mailcutover", Password: "change-me"})
}
