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
		o.Timeout = 20 * time.Second // a busy machine, with a busy disk, is not what most tests are about
		if o.BulkTimeout > 0 {
			o.Timeout = min(o.Timeout, o.BulkTimeout)
		}
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
func contract(t *testing.T, o Options, restart func(t *testing.T)) {
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
		Restart: func(t *testing.T, old table.Table) table.Table {
			restart(t)
			soon(t, "answer after the restart", nil, func() error { _, err := old.Position(t.Context()); return err })
			return old
		},
		OpenShort: func(t *testing.T, keep int) table.Table {
			o := o
			o.LogLength = keep
			return fresh(t, o)
		},
	})
}

// mini is a miniredis that says who it is, which that lacks.
type mini struct {
	*miniredis.Miniredis
	server atomic.Pointer[table.Server]
}

func startMini(t *testing.T) *mini {
	t.Helper()
	m := &mini{Miniredis: miniredis.RunT(t)}
	m.become(1, "")
	m.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
		switch strings.ToUpper(cmd) {
		case "ROLE":
			c.WriteLen(3)
			c.WriteBulk("master")
			c.WriteInt(0)
			c.WriteLen(0)
		case "INFO":
			s := m.server.Load()
			c.WriteBulk(fmt.Sprintf("run_id:%s\r\nmaster_replid:%s\r\nmaster_replid2:%040s\r\n", s.Run, s.Replication, s.Former))
		default:
			return false
		}
		return true
	})
	return m
}

// become makes it another server, promoted from the history former, if not empty.
func (m *mini) become(n int, former string) {
	m.server.Store(&table.Server{Run: fmt.Sprintf("%040x", n), Replication: fmt.Sprintf("%040x", 1000+n), Former: former})
}

func TestContractOnMiniredis(t *testing.T) {
	m := startMini(t)
	contract(t, Options{URL: "redis://" + m.Addr()}, func(*testing.T) { m.become(2, "") })
}

// The whole suite passes with the rights of configs/redis/users.acl.
func TestContractOnRedis(t *testing.T) {
	r := peers.StartRedis(t, peers.RedisOptions{ACL: users(t, "~test:*")})
	contract(t, Options{URL: "redis://" + r.Addr, Username: "mailcutover", Password: "change-me"}, func(t *testing.T) {
		r.Kill()
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
