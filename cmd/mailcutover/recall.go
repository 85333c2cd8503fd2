package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newRecallCommand returns the commands about runs that bring mail over.
func newRecallCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "recall", Short: "Mail that is brought over after a switch: plan, run, status, list; end, accept"}
	cmd.AddCommand(newRecallPlan(c), newRecallRun(c), newRecallStatus(c), newRecallList(c),
		recallAct(c, "end", "End a run before it is done: what isn't back stays where it is", "a new run goes on: mailcutover recall run --agency %s --reason ..."),
		recallAct(c, "accept", "Say that what a run could not bring is seen to, so that the way back can be finalised", "there is none"),
		recallAct(c, "copies", "Have retained copies delivered, since the losing platform can't be read now", "there is none"),
		newRecallTakeOver(c))
	return cmd
}

func addRecall(cmd *cobra.Command, r *admin.NewRecall) {
	cmd.Flags().StringVar(&r.Agency, "agency", "", "agency whose mail is brought (required)")
	cmd.Flags().BoolVar(&r.Everything, "everything", false, "compare everything, whatever the watermarks say")
	cmd.Flags().BoolVar(&r.Copies, "copies", false, "deliver retained copies, since the losing platform can't be read")
	require(cmd, "agency")
}

func newRecallPlan(c *connection) *cobra.Command {
	r := admin.NewRecall{Reason: "a plan"}
	cmd := c.command(&cobra.Command{Use: "plan", Short: "What a run would bring from where to where; nothing is changed", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			p, err := client.PlanRecall(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.show(cmd, p, func(w io.Writer) {
				fmt.Fprintf(w, "%s of agency %s: %s -> %s, on %s\n", p.Kind, p.Agency, p.From, p.To, strings.Join(p.Nodes, ", "))
				for _, text := range p.Text {
					fmt.Fprintln(w, "  "+oneLine(text))
				}
				fmt.Fprintf(w, "next: mailcutover recall run --agency %s --reason ...\n", p.Agency)
			})
		})
	addRecall(cmd, &r)
	return cmd
}

func newRecallRun(c *connection) *cobra.Command {
	var r admin.NewRecall
	var watch bool
	cmd := c.command(&cobra.Command{
		Use: "run", Short: "Bring mail over to the platform on which an agency is", Args: cobra.NoArgs,
		Long: "Bring mail over to the platform on which an agency is. A switch begins a run by itself;\nthis begins another one. What was brought is not brought again, and nothing is deleted.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		one, err := client.BeginRecall(cmd.Context(), r)
		if err != nil {
			return err
		}
		if watch {
			return c.watchRecall(cmd, client, one.ID)
		}
		return c.show(cmd, one, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s of agency %s is under way: %s -> %s\n", one.Kind, one.ID, one.Agency, one.From, one.To)
			fmt.Fprintf(w, "next: mailcutover recall status %s --watch\nundo: mailcutover recall end %[1]s --reason ...; what was brought stays\n", one.ID)
		})
	})
	addRecall(cmd, &r)
	addReason(cmd, &r.Reason)
	cmd.Flags().BoolVar(&watch, "watch", false, "show its progress until it is done")
	return cmd
}

func newRecallStatus(c *connection) *cobra.Command {
	var watch bool
	var agency string
	cmd := c.command(&cobra.Command{
		Use: "status [RUN]", Short: "How far a run is on all nodes, and what isn't back", Args: cobra.MaximumNArgs(1),
		Example: "  mailcutover recall status health-8c1f7a52 --watch\n  mailcutover recall status --agency health",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		id := ""
		switch {
		case len(args) > 0 && agency == "":
			id = args[0]
		case len(args) == 0 && agency != "":
			all, err := client.Recalls(cmd.Context(), agency)
			if err != nil {
				return err
			}
			if len(all.Recalls) == 0 {
				return withHint(fmt.Errorf("agency %s has no run", agency), "a switch begins one: mailcutover recall plan --agency "+agency)
			}
			id = all.Recalls[len(all.Recalls)-1].ID
		default:
			return &usageError{command: cmd.CommandPath(), err: errors.New("name a run, or --agency for its last one")}
		}
		if watch {
			return c.watchRecall(cmd, client, id)
		}
		return c.showRecall(cmd, client, id)
	})
	cmd.Flags().StringVar(&agency, "agency", "", "the last run of this agency")
	cmd.Flags().BoolVar(&watch, "watch", false, "show its progress until it is done; interrupting leaves it alone")
	return cmd
}

// showRecall prints a run with everything that isn't back.
func (c *connection) showRecall(cmd *cobra.Command, client *admin.Client, id string) error {
	one, err := client.Recall(cmd.Context(), id, true)
	if err != nil {
		return err
	}
	warnMissing(cmd, one.Missing, "how far its share is isn't known")
	return c.show(cmd, one, func(w io.Writer) { printRecall(w, &one) })
}

// recallPause is the time between two looks at a run.
const recallPause = time.Second

// watchRecall shows a run's progress until it is over, and then what came of it.
func (c *connection) watchRecall(cmd *cobra.Command, client *admin.Client, id string) error {
	p := &progress{out: cmd.ErrOrStderr(), live: isTerminal(cmd.ErrOrStderr())}
	for {
		one, err := client.Recall(cmd.Context(), id, false)
		if err != nil {
			p.end()
			return withHint(err, "the run goes on at the nodes: mailcutover recall status "+id)
		}
		p.line(recallLine(&one))
		if one.State != "running" {
			p.end()
			return c.showRecall(cmd, client, id)
		}
		select {
		case <-time.After(recallPause):
		case <-cmd.Context().Done():
			p.end()
			return cmd.Context().Err()
		}
	}
}

// recallLine is a run's progress in a line.
func recallLine(r *admin.Recall) string {
	t := &r.Totals
	line := fmt.Sprintf("%s %s: %s, %d of %d mailboxes, %d messages, %s", r.Kind, r.ID, r.State, t.Done+t.Aside, t.Mailboxes, t.Messages, size(t.Bytes))
	switch {
	case r.Left != nil && *r.Left > 0:
		line += ", about " + seconds(*r.Left) + " left"
	case r.State == "running" && r.Left == nil:
		line += ", time left not known"
	}
	for _, n := range r.Nodes {
		if n.Waiting != "" {
			line += "; " + n.Node + " waits: " + n.Waiting
		}
	}
	return line
}

func printRecall(w io.Writer, r *admin.Recall) {
	left := ""
	if r.Left != nil {
		left = "about " + seconds(*r.Left)
	}
	copies := ""
	if r.Copies {
		copies = "retained copies are delivered"
	}
	pairs(w, [2]string{"run", r.ID}, [2]string{"kind", r.Kind}, [2]string{"agency", r.Agency}, [2]string{"from", r.From}, [2]string{"to", r.To},
		[2]string{"state", r.State}, [2]string{"left", left}, [2]string{"operation", r.Operation}, [2]string{"person", r.Person}, [2]string{"reason", r.Reason},
		[2]string{"begun", local(&r.Begun)}, [2]string{"since", local(r.Since)}, [2]string{"last pass after", local(&r.After)}, [2]string{"watermarks", firstOf(r.Watermarks, "none: everything is compared")},
		[2]string{"copies", copies}, [2]string{"ended", recallWord(r.Ended)}, [2]string{"accepted", recallWord(r.Accepted)})
	fmt.Fprintln(w)
	var rows [][]string
	for _, n := range r.Nodes {
		t := &n.Totals
		left := ""
		if n.Left != nil {
			left = seconds(*n.Left)
		}
		rows = append(rows, []string{n.Node, n.State, fmt.Sprintf("%d of %d", t.Done, t.Mailboxes), strconv.Itoa(t.Aside), strconv.Itoa(t.Messages), size(t.Bytes), strconv.Itoa(t.NotBack), left, n.Waiting})
	}
	table(w, []string{"NODE", "STATE", "MAILBOXES", "ASIDE", "MESSAGES", "SIZE", "NOT BACK", "LEFT", "WAITING"}, rows)
	fmt.Fprintf(w, "\n%s\n", oneLine(r.Text))
	t := &r.Totals
	if t.Rewritten > 0 {
		fmt.Fprintf(w, "given back by %s with another size: %d\n", r.To, t.Rewritten)
	}
	for _, flag := range slices.Sorted(maps.Keys(t.FlagsNotTaken)) {
		fmt.Fprintf(w, "%s doesn't keep %s: %d messages are without it\n", r.To, oneLine(flag), t.FlagsNotTaken[flag])
	}
	for _, n := range r.Nodes {
		for _, text := range n.Notes {
			fmt.Fprintf(w, "note of %s: %s\n", n.Node, oneLine(text))
		}
		for _, text := range n.Silent {
			fmt.Fprintf(w, "not counted in \"delivered by us\" on %s: %s\n", n.Node, oneLine(text))
		}
	}
	printNotBack(w, r)
	if r.Accepted == nil && (r.State == "done" || r.State == "ended") && t.NotBack+t.Aside > 0 {
		fmt.Fprintf(w, "\nnext: see to each of them, then mailcutover recall accept %s --reason ...\n", r.ID)
	}
}

// printNotBack names what isn't back, one by one.
func printNotBack(w io.Writer, r *admin.Recall) {
	var boxes, rows [][]string
	for _, n := range r.Nodes {
		for _, b := range n.Boxes {
			if !b.Done {
				boxes = append(boxes, []string{b.Address, n.Node, yesNo(b.Aside), b.Reason})
			}
			for _, m := range b.NotBack {
				uid := ""
				if m.UID > 0 {
					uid = strconv.FormatUint(uint64(m.UID), 10)
				}
				rows = append(rows, []string{b.Address, m.Folder, uid, size(m.Size), m.Class, m.Reason, m.Key})
			}
		}
	}
	if len(boxes) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"NOT DONE", "NODE", "ASIDE", "BECAUSE"}, boxes)
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"NOT BACK", "FOLDER", "UID", "SIZE", "CLASS", "BECAUSE", "KEY"}, rows)
	}
}

func recallWord(w *admin.RecallWord) string {
	if w == nil {
		return ""
	}
	return w.Person + ", " + local(&w.Time) + ": " + w.Reason
}

func newRecallList(c *connection) *cobra.Command {
	var agency string
	cmd := c.command(&cobra.Command{Use: "list", Short: "Runs, the newest last", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Recalls(cmd.Context(), agency)
			if err != nil {
				return err
			}
			if all.Unreadable != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", printable(all.Unreadable))
			}
			return c.show(cmd, all, func(w io.Writer) {
				var rows [][]string
				for i := range all.Recalls {
					r := &all.Recalls[i]
					accepted := ""
					if r.Accepted != nil {
						accepted = r.Accepted.Person
					}
					rows = append(rows, []string{r.ID, r.Kind, r.Agency, r.From + " -> " + r.To, r.State, local(&r.Begun), strconv.Itoa(r.Totals.NotBack + r.Totals.Aside), accepted, r.Person, r.Reason})
				}
				table(w, []string{"RUN", "KIND", "AGENCY", "WAY", "STATE", "BEGUN", "LEFT OVER", "ACCEPTED", "PERSON", "REASON"}, rows)
			})
		})
	cmd.Flags().StringVar(&agency, "agency", "", "only those of this agency")
	return cmd
}

// recallAct is a command that does something about a run. undo may have a %s for the agency.
func recallAct(c *connection, act, short, undo string) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{Use: act + " RUN", Short: short, Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			r, err := client.ActOnRecall(cmd.Context(), args[0], act, "", reason)
			if err != nil {
				return err
			}
			return c.show(cmd, r, func(w io.Writer) {
				fmt.Fprintf(w, "%s %s of agency %s: %s\n%s\n", r.Kind, r.ID, r.Agency, r.State, oneLine(r.Text))
				fmt.Fprintln(w, "undo: "+strings.ReplaceAll(undo, "%s", r.Agency))
			})
		})
	addReason(cmd, &reason)
	return cmd
}

func newRecallTakeOver(c *connection) *cobra.Command {
	var reason, node string
	cmd := c.command(&cobra.Command{
		Use: "take-over RUN", Short: "Let the other nodes bring the share of one that is gone", Args: cobra.ExactArgs(1),
		Long: "Let the other nodes bring the share of one that is gone. They don't know what it had\nbrought: what a user has deleted since may come back once.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		r, err := client.ActOnRecall(cmd.Context(), args[0], "take-over", node, reason)
		if err != nil {
			return err
		}
		return c.show(cmd, r, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s: the share of %s is the others' now\nundo: there is none\n", r.Kind, r.ID, node)
		})
	})
	cmd.Flags().StringVar(&node, "without-node", "", "node that is gone (required)")
	require(cmd, "without-node")
	addReason(cmd, &reason)
	return cmd
}
