package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newNodeCommand returns the commands about nodes.
func newNodeCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Nodes: list, drain, evict, fence"}
	list := c.command(&cobra.Command{Use: "list", Short: "All nodes of the table", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			n, err := client.NodesWithSessions(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, n, func(w io.Writer) { printNodes(w, n) })
		})
	cmd.AddCommand(list, newNodeDrain(c),
		newNodeProposal(c, "evict", &cobra.Command{
			Use: "evict NODE", Short: "Take a node that is gone out of the table: propose it, or start what others have approved",
		}, nil),
		newFence(c))
	return cmd
}

func printNodes(w io.Writer, n admin.Nodes) {
	if n.Rejoining != "" {
		fmt.Fprintf(w, "the table is rejoining, and takes no changes but what closes: %s\n\n", printable(n.Rejoining))
	}
	var rows [][]string
	for _, one := range n.Nodes {
		state := one.State
		if one.Behind {
			state += ", behind"
		}
		sessions := ""
		if one.Sessions != nil {
			sessions = strconv.Itoa(*one.Sessions)
		}
		rows = append(rows, []string{one.Node, state, local(one.ShortEnd), local(one.LongEnd), strconv.FormatUint(one.Applied, 10),
			strconv.Itoa(one.InDoubt), strconv.Itoa(one.Held), strconv.Itoa(one.Waiting), sessions, one.Build, one.Address})
	}
	table(w, []string{"NODE", "STATE", "SHORT LEASE", "LONG LEASE", "APPLIED", "IN DOUBT", "HELD", "WAITING", "SESSIONS", "BUILD", "ADDRESS"}, rows)
	fmt.Fprintf(w, "\nrevision %d, term %d, %s by the table's clock\n", n.Revision, n.Term, local(&n.Time))
}

func newNodeDrain(c *connection) *cobra.Command {
	var reason string
	var end bool
	cmd := c.command(&cobra.Command{Use: "drain NODE", Short: "Ask a node to take no new work, or with --end let it work again", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			n, err := client.DrainNode(cmd.Context(), args[0], !end, reason)
			if err != nil {
				return err
			}
			return c.show(cmd, n, func(w io.Writer) {
				if end {
					fmt.Fprintf(w, "node %s works again\nundo: mailcutover node drain %s --reason ...\n", args[0], args[0])
					return
				}
				fmt.Fprintf(w, "node %s is asked to take no new work\nundo: mailcutover node drain %s --end --reason ...\n", args[0], args[0])
			})
		})
	addReason(cmd, &reason)
	cmd.Flags().BoolVar(&end, "end", false, "let it work again")
	return cmd
}

// newNodeProposal is a command that proposes an act on a node, or starts it where others
// have approved it. check, unless nil, looks at the command line first.
func newNodeProposal(c *connection, kind string, cmd *cobra.Command, check func() error) *cobra.Command {
	p := admin.NewProposal{Kind: kind}
	cmd.Args = cobra.ExactArgs(1)
	c.command(cmd, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		if check != nil {
			if err := check(); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
		}
		p.Node = args[0]
		return c.propose(cmd, client, p, unasked)
	})
	addReason(cmd, &p.Reason)
	return cmd
}

func newFence(c *connection) *cobra.Command {
	var attested, emergency bool
	cmd := newNodeProposal(c, "attest", &cobra.Command{
		Use: "fence NODE --attested", Short: "Say that a node is powered off or cut off from the platforms: propose it, or start what others have approved",
		Long: "Say that a node's process is powered off, or cut off from the platforms, so that it can\ndeliver no more. Operations then go on without it. If that isn't true, mail may go to the\nwrong side. A silent node is fenced without it, once its lease and the platform's limit\nare over. With --emergency one person says it, at once: emergencies alone go on without\nthe node, and nothing else begins until a second one has confirmed it.",
	}, func() error {
		if !attested {
			return errors.New("say --attested: only people's word is given here; by time a node is fenced without a command")
		}
		return nil
	})
	cmd.Flags().BoolVar(&attested, "attested", false, "I have made sure that it is powered off or cut off")
	cmd.Flags().BoolVar(&emergency, "emergency", false, "on one person's word, which a second one has to confirm afterwards")
	proposes := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !emergency || !attested {
			return proposes(cmd, args)
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		reason, _ := cmd.Flags().GetString("reason")
		a, err := client.AttestAlone(cmd.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return c.show(cmd, a, func(w io.Writer) {
			fmt.Fprintf(w, "node %s (instance %s) is attested dead, on your word alone\na second person: mailcutover emergency confirm %s --reason ...\n", a.Node, a.Instance, a.Emergency)
		})
	}
	return cmd
}

func newNamesComplete(c *connection) *cobra.Command {
	p := admin.NewProposal{Kind: "names-complete"}
	cmd := c.command(&cobra.Command{
		Use: "names-complete", Short: "Take people's word that the table has all names again: propose it, or start what others have approved", Args: cobra.NoArgs,
		Long: "Take people's word that the table, which lost names, has all of them again. Until then\nunknown names are answered 451. Import first what was imported after the backup, or was\nlost in the failover.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		return c.propose(cmd, client, p, unasked)
	})
	addReason(cmd, &p.Reason)
	return cmd
}

func newReconcile(c *connection) *cobra.Command {
	p := admin.NewProposal{Kind: "reconcile"}
	cmd := c.command(&cobra.Command{
		Use: "reconcile AGENCY", Short: "Give an agency whose record the table lost the highest one seen: propose it, or start what others have approved", Args: cobra.ExactArgs(1),
		Long: "Give an agency whose record the table lost the highest one that any node has seen, locked,\nwith a higher epoch; and with it those of the same operation. Look at both records, and\nat the platforms, before you approve it; then unlock.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		p.Agency = args[0]
		return c.propose(cmd, client, p, unasked)
	})
	addReason(cmd, &p.Reason)
	return cmd
}

func newEndRejoin(c *connection) *cobra.Command {
	p := admin.NewProposal{Kind: "end-rejoin"}
	cmd := c.command(&cobra.Command{
		Use: "end-rejoin", Short: "Take people's word that the table is as it should be: propose it, or start what others have approved", Args: cobra.NoArgs,
		Long: "End a rejoin of the table although nodes are missing, or have seen more than it has.\nmailcutover node list says what it waits for.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		return c.propose(cmd, client, p, unasked)
	})
	addReason(cmd, &p.Reason)
	return cmd
}
