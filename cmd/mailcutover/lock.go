package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

func newLock(c *connection) *cobra.Command {
	var reason, epoch string
	var here bool
	cmd := c.command(&cobra.Command{
		Use: "lock AGENCY", Short: "Close an agency at once, in an emergency", Args: cobra.ExactArgs(1),
		Long:    "Close an agency at once on your word alone: mail is held, logins wait. It says of each\nnode how far it is. A second person confirms it afterwards, and it takes two to unlock.\n\nWith --local it is closed on this node only, without the table: for when that can't be\nreached. Say it on every node. The table has the lock as soon as it can be reached.",
		Example: "  mailcutover agency lock health --reason 'mail of two mailboxes was mixed up'\n  mailcutover agency lock health --local --reason 'the table is away, and ox loses mail'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		if here {
			return c.lockLocal(cmd, client, args[0], reason)
		}
		done, err := client.Lock(cmd.Context(), args[0], epoch, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, done, func(w io.Writer) {
			fmt.Fprintf(w, "agency %s is locked in epoch %s\n", done.Agency.ID, done.Agency.Epoch)
			if !done.Complete {
				fmt.Fprintln(w, "NOT ALL NODES HAVE SEEN IT: those that wait may serve as before until the time that is named")
			}
			printReceipts(w, done.Nodes)
			fmt.Fprintf(w, "next: another person: mailcutover emergency confirm %s --reason ...\n", done.Emergency)
			fmt.Fprintf(w, "undo: mailcutover agency unlock %s --reason ...\n", done.Agency.ID)
		})
	})
	addReason(cmd, &reason)
	cmd.Flags().StringVar(&epoch, "expected-epoch", "", "refuse if the agency's epoch is another (default: whatever it is)")
	cmd.Flags().BoolVar(&here, "local", false, "on this node only, without the table")
	cmd.MarkFlagsMutuallyExclusive("local", "expected-epoch")
	return cmd
}

// lockLocal closes an agency on the node that is asked.
func (c *connection) lockLocal(cmd *cobra.Command, client *admin.Client, id, reason string) error {
	done, err := client.LockLocal(cmd.Context(), id, reason)
	if err != nil {
		return err
	}
	return c.show(cmd, done, func(w io.Writer) {
		fmt.Fprintf(w, "agency %s is locked on node %s, AND ONLY THERE, since %s\n", done.Agency, done.Node, local(&done.Since))
		if n := done.Awaited + done.InDoubt; n > 0 {
			fmt.Fprintf(w, "%d messages were sent before and may still arrive\n", n)
		}
		fmt.Fprintln(w, "next: the same on every other node (--api); as soon as the table can be reached it is locked there")
		fmt.Fprintf(w, "undo: once the table has the lock: mailcutover agency unlock %s --reason ...\n", done.Agency)
	})
}

// newProposed is a command that proposes an act on an agency, or starts it where others
// have approved it.
func newProposed(c *connection, kind string, cmd *cobra.Command) *cobra.Command {
	var reason, epoch string
	cmd.Args = cobra.ExactArgs(1)
	c.command(cmd, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		seen, err := seenEpoch(cmd, client, args[0], epoch)
		if err != nil {
			return err
		}
		return c.propose(cmd, client, admin.NewProposal{Kind: kind, Agency: args[0], ExpectedEpoch: seen, Reason: reason}, unasked)
	})
	addReason(cmd, &reason)
	addEpoch(cmd, &epoch)
	return cmd
}

func newUnlock(c *connection) *cobra.Command {
	return newProposed(c, "unlock", &cobra.Command{Use: "unlock AGENCY", Short: "End a lock: propose it, or start what others have approved"})
}

func newFinalise(c *connection) *cobra.Command {
	return newProposed(c, "finalise", &cobra.Command{Use: "finalise AGENCY", Short: "End the way back: propose it, or start what others have approved"})
}

func newAgencySettle(c *connection) *cobra.Command {
	var reason, epoch string
	cmd := c.command(&cobra.Command{
		Use: "settle AGENCY", Short: "End the arming of an agency", Args: cobra.ExactArgs(1),
		Long: "End the arming of an agency: nodes lease it long again, so that its mail goes on for as\nlong when the table is away. No answer changes.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		seen, err := seenEpoch(cmd, client, args[0], epoch)
		if err != nil {
			return err
		}
		a, err := client.Settle(cmd.Context(), args[0], seen, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, a, func(w io.Writer) {
			fmt.Fprintf(w, "agency %s is %s in epoch %s\n", a.ID, a.Tightness, a.Epoch)
			fmt.Fprintf(w, "undo: mailcutover agency arm %s --reason ...\n", a.ID)
		})
	})
	addReason(cmd, &reason)
	addEpoch(cmd, &epoch)
	return cmd
}

func newFreeze(c *connection) *cobra.Command {
	return newFreezing(c, true, &cobra.Command{Use: "freeze [AGENCY]", Short: "Forbid operations of an agency, or of --all, to begin; emergencies go on"})
}

func newLift(c *connection) *cobra.Command {
	return newFreezing(c, false, &cobra.Command{Use: "lift [AGENCY]", Short: "End the freeze of an agency, or that of --all"})
}

func newFreezing(c *connection, on bool, cmd *cobra.Command) *cobra.Command {
	var reason string
	var all bool
	cmd.Args = cobra.MaximumNArgs(1)
	c.command(cmd, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		if all == (len(args) == 1) {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("name an agency, or say --all, one of them")}
		}
		agency, what := strings.Join(args, ""), "all agencies"
		if agency != "" {
			what = "agency " + agency
		}
		do, done, undo := client.Freeze, "frozen", "lift"
		if !on {
			do, done, undo = client.Lift, "not frozen any more", "freeze"
		}
		list, err := do(cmd.Context(), agency, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, list, func(w io.Writer) {
			fmt.Fprintf(w, "%s: %s\nundo: mailcutover agency %s %s --reason ...\n", what, done, undo, firstOf(agency, "--all"))
		})
	})
	addReason(cmd, &reason)
	cmd.Flags().BoolVar(&all, "all", false, "all agencies")
	return cmd
}

func newFreezes(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "freezes", Short: "The freezes in force", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			list, err := client.Freezes(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, list, func(w io.Writer) {
				var rows [][]string
				for _, f := range list {
					rows = append(rows, []string{firstOf(f.Agency, "all"), local(&f.Since), f.Person, f.Reason})
				}
				table(w, []string{"AGENCY", "SINCE", "PERSON", "REASON"}, rows)
			})
		})
}

// newEmergencyCommand returns the commands about what one person did alone.
func newEmergencyCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "emergency", Short: "What one person did alone: list, confirm"}
	list := c.command(&cobra.Command{Use: "list", Short: "Emergencies that a second person has not confirmed", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Emergencies(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) {
				var rows [][]string
				for _, e := range all {
					rows = append(rows, []string{e.ID, e.What, strings.Join(e.Agencies, ","), local(e.Time), e.Person, e.Reason})
				}
				table(w, []string{"EMERGENCY", "WHAT", "AGENCIES", "TIME", "PERSON", "REASON"}, rows)
			})
		})
	var reason string
	done := c.command(&cobra.Command{Use: "confirm EMERGENCY", Short: "Confirm what another person did alone, once you have looked", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			e, err := client.ConfirmEmergency(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return c.show(cmd, e, func(w io.Writer) {
				fmt.Fprintf(w, "emergency %s (%s) is confirmed; nothing opened or closed by that\nundo: there is none\n", e.ID, strings.Join(append(slices.Clone(e.Agencies), e.Nodes...), ", "))
			})
		})
	addReason(done, &reason)
	cmd.AddCommand(list, done)
	return cmd
}
