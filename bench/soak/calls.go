package main

import (
	"context"
	"fmt"
	"time"

	"mailcutover/admin"
	"mailcutover/test/cluster"
)

// calls are what people and their page ask a node for.
var calls = []struct {
	name string
	ask  func(ctx context.Context, n *cluster.Node) error
}{
	{"agencies", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Agencies(ctx); return err }},
	{"operations", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Operations(ctx, ""); return err }},
	{"nodes", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Nodes(ctx); return err }},
	{"alarms", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Alarms(ctx); return err }},
	{"table", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Table(ctx); return err }},
	{"platforms", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Platforms(ctx); return err }},
	{"spool", func(ctx context.Context, n *cluster.Node) error { _, err := n.API.Spool(ctx); return err }},
	{"sessions", func(ctx context.Context, n *cluster.Node) error {
		_, err := n.API.Sessions(ctx, admin.SessionFilter{}, true, "", 100)
		return err
	}},
	{"route of an address", func(ctx context.Context, n *cluster.Node) error {
		r, err := n.API.Route(ctx, "address", cluster.Mailbox("parks", 7))
		if err == nil && !r.Deliver {
			err = fmt.Errorf("it is not delivered: %+v", r)
		}
		return err
	}},
	{"mailboxes", func(ctx context.Context, n *cluster.Node) error {
		_, err := n.API.Mailboxes(ctx, "parks", "")
		return err
	}},
	{"deliveries", func(ctx context.Context, n *cluster.Node) error {
		_, err := n.API.Deliveries(ctx, admin.LedgerQuery{Agency: "health", Since: time.Now().Add(-time.Minute)})
		return err
	}},
}
