package admin_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// deaf is a table whose answers get lost.
type deaf struct {
	table.Table
	mu   sync.Mutex
	lose int // the next answers of Change
	ids  []string
}

func (d *deaf) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	pos, err := d.Table.Change(ctx, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = append(d.ids, c.ID)
	if d.lose > 0 {
		d.lose--
		return routing.Position{}, fmt.Errorf("%w: answer lost", table.ErrUnavailable)
	}
	return pos, err
}

// A change whose answer is lost is sent again as the same one, so it happens once.
func TestAnswerLost(t *testing.T) {
	var d *deaf
	n := admintest.Start(t, func(o *admin.Options) {
		d = &deaf{Table: o.Table, lose: 2}
		o.Table = d
	})
	before := n.Replica.State().Position()
	a := addHealth(t, n)
	if a.Revision != uint64(before.Revision)+1 {
		t.Errorf("revision %d after %d", a.Revision, before.Revision)
	}
	if len(d.ids) != 3 || d.ids[0] != d.ids[1] || d.ids[1] != d.ids[2] {
		t.Errorf("changes %v", d.ids)
	}
}

// A table that is gone doesn't keep the node from saying what it knows, and how old that is.
func TestTableGone(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	if err := n.Table.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := admin.NewClient(n.URL, admintest.Anna, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := c.Agencies(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if tab, err := c.Table(t.Context()); err != nil || tab.Age < 0 || tab.Agencies != 1 {
		t.Errorf("%+v, %v", tab, err)
	}
}

// A node without the right to decide says so, with what its copy would have said.
func TestNotDeciding(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) {
		o.Gate = node.NewGate(o.Replica.(*replica.Replica), node.Lease{}, "+")
	})
	addHealth(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"anna@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	r := want[admin.Route](t, n, 200, "GET", "/v1/route?address=anna@health.example", "")
	if r.Deliver || r.Reason != "table can't be used" || r.Agency != "health" || !strings.Contains(r.Explain, "may not decide now") {
		t.Errorf("%+v", r)
	}
	status, _, text := call(t, n, "GET", "/readyz", "", "Authorization", "")
	if status != 503 || !strings.Contains(text, `"ready":false`) || !strings.Contains(text, `"approval":"none"`) {
		t.Errorf("%d %s", status, text)
	}
}
