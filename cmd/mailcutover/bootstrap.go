package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// askTimeout bounds the question to another node.
const askTimeout = 5 * time.Second

func newBootstrap(c *connection) *cobra.Command {
	var reason, approve string
	var from, although bool
	cmd := c.command(&cobra.Command{
		Use: "bootstrap", Short: "Fill a table that lost everything from the nodes' copies", Args: cobra.NoArgs,
		Long: "Fill an empty table from the copy of the node that has seen the most. Every agency is\nlocked afterwards. It takes two people: one says --from-replicas, another --approve\nDIGEST at the node that it names. Without either it shows what would be done.\n\nRedis' own data, or those of a replica of it, are better where there still are any. A backup\n(mailcutover restore) is for the case that no node has its copy any more.",
		Example: "  mailcutover table bootstrap\n  mailcutover table bootstrap --from-replicas --reason 'redis-1 and redis-2 are lost'\n" +
			"  mailcutover table bootstrap --approve 3f1c... --reason 'seen at the console too'",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		var f admin.Foundation
		var err error
		if approve != "" {
			if f, err = client.ApproveBootstrap(cmd.Context(), approve, reason); err != nil {
				return err
			}
			return c.showFoundation(cmd, f, nil)
		}
		if f, err = client.Foundation(cmd.Context()); err != nil {
			return err
		}
		others := c.otherCopies(cmd.Context(), f)
		if !from {
			return c.showFoundation(cmd, f, others)
		}
		for _, o := range others {
			switch {
			case o.newer(f):
				return withHint(fmt.Errorf("node %s has seen more: term %d, revision %d", o.Node, o.Term, o.Revision), "do it there: --api "+o.API)
			case o.Error != "" && !although:
				return withHint(fmt.Errorf("node %s doesn't say what it has seen: %s", o.Node, o.Error),
					"start it; or, if it is gone for good, say --although-missing: if it has seen more, that is found when it comes back")
			}
		}
		if f, err = client.ProposeBootstrap(cmd.Context(), f.Digest, reason); err != nil {
			return err
		}
		return c.showFoundation(cmd, f, others)
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is journaled")
	cmd.Flags().BoolVar(&from, "from-replicas", false, "propose it")
	cmd.Flags().StringVar(&approve, "approve", "", "approve what another person proposed, by its digest")
	cmd.Flags().BoolVar(&although, "although-missing", false, "also if a node can't be asked what it has seen")
	cmd.MarkFlagsMutuallyExclusive("from-replicas", "approve")
	return cmd
}

// otherCopy is what another node says of its copy.
type otherCopy struct {
	Node     string `json:"node"`
	API      string `json:"api"`
	Term     uint32 `json:"term"`
	Revision uint64 `json:"revision"`
	Error    string `json:"error,omitempty"`
}

// newer reports whether it has seen more than the copy f.
func (o *otherCopy) newer(f admin.Foundation) bool {
	return o.Error == "" && cmp.Or(cmp.Compare(o.Term, f.Term), cmp.Compare(o.Revision, f.Revision)) > 0
}

// otherCopies asks all other members, with the same token and as the node itself is asked.
func (c *connection) otherCopies(ctx context.Context, f admin.Foundation) []otherCopy {
	scheme := "http"
	if u, err := url.Parse(c.base()); err == nil {
		scheme = u.Scheme
	}
	var all []otherCopy
	for _, m := range f.Members {
		if strings.EqualFold(m.Node, f.Node) {
			continue
		}
		o := otherCopy{Node: m.Node, API: scheme + "://" + m.Address}
		if err := c.askCopy(ctx, m.Address, &o); err != nil {
			o.Error = err.Error()
		}
		all = append(all, o)
	}
	return all
}

func (c *connection) askCopy(ctx context.Context, address string, o *otherCopy) error {
	if address == "" {
		return errors.New("the copy doesn't know its address")
	}
	client, err := c.clientAt(o.API)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	f, err := client.Foundation(ctx)
	o.Term, o.Revision = f.Term, f.Revision
	return err
}

func (c *connection) showFoundation(cmd *cobra.Command, f admin.Foundation, others []otherCopy) error {
	all := struct {
		Foundation admin.Foundation `json:"foundation"`
		Others     []otherCopy      `json:"others"`
	}{f, others}
	return c.show(cmd, all, func(w io.Writer) {
		if f.Done != "" {
			fmt.Fprintf(w, "the table is filled: %s\nnext: mailcutover node list, until all have rejoined; then mailcutover agency unlock for each agency\n", f.Done)
			return
		}
		pairs(w, [2]string{"copy of node", f.Node}, [2]string{"term", fmt.Sprint(f.Term)}, [2]string{"revision", fmt.Sprint(f.Revision)},
			[2]string{"digest", f.Digest}, [2]string{"agencies", fmt.Sprintf("%d, all are locked by it", len(f.Agencies))},
			[2]string{"mailboxes", fmt.Sprint(f.Mailboxes)}, [2]string{"open operations", strings.Join(f.Operations, ", ")},
			[2]string{"proposed by", f.Proposer}, [2]string{"approved by", strings.Join(f.Approvers, ", ")})
		printOthers(w, others, f)
		if f.Proposer != "" {
			fmt.Fprintf(w, "\nnext: another person: mailcutover table bootstrap --approve %s --reason ... --api %s\n", f.Digest, c.base())
		}
	})
}

// printOthers prints what other nodes say of their copies, beside one.
func printOthers(w io.Writer, others []otherCopy, f admin.Foundation) {
	var rows [][]string
	for _, o := range others {
		remark := o.Error
		if o.newer(f) {
			remark = "HAS SEEN MORE: do it there"
		}
		rows = append(rows, []string{o.Node, fmt.Sprint(o.Term), fmt.Sprint(o.Revision), remark})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"OTHER NODE", "TERM", "REVISION", ""}, rows)
	}
}
