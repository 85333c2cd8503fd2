package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

func newPlan(c *connection) *cobra.Command {
	var r admin.PlanRequest
	cmd := c.command(&cobra.Command{
		Use: "plan KIND", Short: "What a cutover, rollback or proposed remap would do: the dry run", Args: cobra.ExactArgs(1),
		Long:    "What a cutover, a rollback or a proposed remap would do, with all checks. Nothing is\nchanged.",
		Example: "  mailcutover operation plan cutover --agency health",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		r.Kind = args[0]
		if kinds := []string{"cutover", "rollback", "remap"}; !slices.Contains(kinds, r.Kind) {
			return &usageError{err: fmt.Errorf("KIND %q: want %s", r.Kind, strings.Join(kinds, ", ")), command: cmd.CommandPath()}
		}
		p, err := client.Plan(cmd.Context(), r)
		if err != nil {
			return err
		}
		if err := c.show(cmd, p, func(w io.Writer) { fmt.Fprint(w, printable(p.Text)) }); err != nil {
			return err
		}
		if p.Refused {
			return withHint(fmt.Errorf("%s of agency %s would be refused", p.Kind, p.Agency), "the checks above say why")
		}
		return nil
	})
	cmd.Flags().StringVar(&r.Agency, "agency", "", "agency that it is for")
	cmd.Flags().StringVar(&r.Proposal, "proposal", "", "of a remap: the proposal that has its mappings")
	cmd.Flags().StringSliceVar(&r.Without, "without", nil, "hook that is left out; may be repeated")
	cmd.Flags().BoolVar(&r.Emergency, "emergency", false, "as an emergency")
	cmd.Flags().BoolVar(&r.TargetDead, "target-dead", false, "with --emergency: the target can't answer any more")
	cmd.MarkFlagsOneRequired("agency", "proposal")
	return cmd
}

func newPropose(c *connection) *cobra.Command {
	var p admin.NewProposal
	cmd := c.command(&cobra.Command{
		Use: "propose KIND", Short: "Propose something that others have to approve", Args: cobra.ExactArgs(1),
		Long: "Propose something that others have to approve: cutover, rollback, retire, unlock, finalise,\n" +
			"publish, without-hook, drop-spooled, evict, attest, reconcile, end-rejoin,\nnames-complete. agency add and table domain propose as well. A remap is " +
			"proposed with its list: mailcutover mailbox import --remap.",
		Example: "  mailcutover operation propose cutover --agency health --reason 'wave 3'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		p.Kind = args[0]
		var err error
		if p.Agency != "" && p.Kind != "reconcile" {
			if p.ExpectedEpoch, err = seenEpoch(cmd, client, p.Agency, p.ExpectedEpoch); err != nil {
				return err
			}
		}
		made, err := client.Propose(cmd.Context(), p)
		if err != nil {
			return err
		}
		return c.proposed(cmd, made, p.DryRun)
	})
	cmd.Flags().StringVar(&p.Agency, "agency", "", "agency that it is for")
	cmd.Flags().StringVar(&p.Node, "node", "", "node that it is for")
	cmd.Flags().StringVar(&p.Operation, "operation", "", "operation that it is for")
	cmd.Flags().StringVar(&p.Replica, "replica", "", "replica of the table's server that is dead")
	cmd.Flags().StringVar(&p.Hook, "hook", "", "hook that doesn't succeed")
	cmd.Flags().StringSliceVar(&p.Without, "without", nil, "hook that is left out; may be repeated")
	cmd.Flags().BoolVar(&p.DryRun, "dry-run", false, "only say what it would be")
	addReason(cmd, &p.Reason)
	addEpoch(cmd, &p.ExpectedEpoch)
	return cmd
}

// proposed prints a proposal and what comes next.
func (c *connection) proposed(cmd *cobra.Command, p admin.Proposal, dryRun bool) error {
	return c.show(cmd, p, func(w io.Writer) {
		printProposal(w, p)
		fmt.Fprintln(w)
		switch {
		case dryRun:
			fmt.Fprintln(w, "dry run: nothing was proposed")
			return
		case p.Missing > 0:
			fmt.Fprintf(w, "proposed; %d other %s to approve it until %s\n", p.Missing, plural(p.Missing, "person has", "persons have"), local(&p.Expires))
			fmt.Fprintf(w, "next: another person: mailcutover operation approve %s --digest %s\n", p.ID, p.Digest)
			fmt.Fprintf(w, "then: mailcutover operation start %s\n", p.ID)
		default:
			fmt.Fprintf(w, "proposed; nobody else has to approve it\nnext: mailcutover operation start %s\n", p.ID)
		}
		fmt.Fprintf(w, "undo: mailcutover operation withdraw %s --reason ...\n", p.ID)
	})
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func printProposal(w io.Writer, p admin.Proposal) {
	var approvals []string
	for _, a := range p.Approvals {
		approvals = append(approvals, a.Person)
	}
	ended := ""
	if p.Ended != nil {
		ended = p.Ended.Person + ", " + local(&p.Ended.Time)
	}
	pairs(w, [2]string{"proposal", p.ID}, [2]string{"kind", p.Kind}, [2]string{"agency", p.Agency}, [2]string{"node", p.Node}, [2]string{"wave", p.Wave},
		[2]string{"state", p.State}, [2]string{"why", p.Why}, [2]string{"by", ended}, [2]string{"operation", p.Operation},
		[2]string{"person", p.Person}, [2]string{"reason", p.Reason}, [2]string{"proposed", local(&p.Created)}, [2]string{"until", local(&p.Expires)},
		[2]string{"approved by", strings.Join(approvals, ", ")}, [2]string{"missing", strconv.Itoa(p.Missing)}, [2]string{"digest", p.Digest})
	fmt.Fprintln(w)
	for line := range strings.Lines(p.Text) {
		fmt.Fprintln(w, "    "+printable(strings.TrimSuffix(line, "\n")))
	}
}

// ofAgency returns the proposals for an agency; for an empty one, all.
func ofAgency(all []admin.Proposal, agency string) []admin.Proposal {
	return slices.DeleteFunc(all, func(p admin.Proposal) bool { return agency != "" && p.Agency != agency })
}

func printProposals(w io.Writer, all []admin.Proposal) {
	var rows [][]string
	for _, p := range all {
		rows = append(rows, []string{p.ID, p.Kind, firstOf(p.Agency, p.Node, p.Wave), p.State, local(&p.Expires), strconv.Itoa(p.Missing), p.Person, p.Reason})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"PROPOSAL", "KIND", "FOR", "STATE", "UNTIL", "MISSING", "PERSON", "REASON"}, rows)
	}
}

func newApprove(c *connection) *cobra.Command {
	var digest, note string
	cmd := c.command(&cobra.Command{
		Use: "approve PROPOSAL", Short: "Approve what somebody else has proposed", Args: cobra.ExactArgs(1),
		Long: "Approve what somebody else has proposed. On a terminal it is shown, and asked for.\nElsewhere --digest says what was read: operation show prints it.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		p, err := client.Proposal(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if digest == "" {
			if !isTerminal(cmd.InOrStdin()) {
				return &usageError{command: "mailcutover operation approve", err: withHint(errors.New("what is approved isn't named"),
					"read mailcutover operation show "+p.ID+", then say --digest with what it prints")}
			}
			printProposal(cmd.ErrOrStderr(), p)
			if err := typed(cmd.InOrStdin(), cmd.ErrOrStderr(), firstOf(p.Agency, p.Node, p.Domain, p.Wave, p.Kind)); err != nil {
				return err
			}
			digest = p.Digest
		}
		if len(digest) != len(p.Digest) {
			return &usageError{err: fmt.Errorf("--digest %q: want all %d digits that mailcutover operation show %s prints", digest, len(p.Digest), p.ID), command: cmd.CommandPath()}
		}
		if p, err = client.Approve(cmd.Context(), args[0], digest, note); err != nil {
			return err
		}
		return c.show(cmd, p, func(w io.Writer) {
			fmt.Fprintf(w, "%s of %s, proposed by %s, is approved by you; missing: %d\n", p.Kind, firstOf(p.Agency, p.Node, p.Domain, p.Wave, "the table"), printable(p.Person), p.Missing)
			if p.Missing == 0 {
				fmt.Fprintf(w, "next: mailcutover operation start %s\n", p.ID)
			}
			fmt.Fprintln(w, "undo: there is none; who proposed it withdraws it")
		})
	})
	cmd.Flags().StringVar(&digest, "digest", "", "of the proposal as you have read it")
	cmd.Flags().StringVar(&note, "note", "", "for the audit log")
	return cmd
}

// typed lets the operator type a word.
func typed(in io.Reader, out io.Writer, word string) error {
	fmt.Fprintf(out, "Type %s to go on: ", word)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		fmt.Fprintln(out) // nobody ended the prompt's line
	}
	if strings.TrimSpace(line) != word {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the confirmation: %w", err)
		}
		return withHint(errors.New("not confirmed; nothing was changed"), "type "+word+" to go on")
	}
	return nil
}

func newWithdraw(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{Use: "withdraw PROPOSAL", Short: "Take one's own proposal back", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			p, err := client.Withdraw(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return c.show(cmd, p, func(w io.Writer) { fmt.Fprintf(w, "proposal %s is withdrawn\nundo: propose it again\n", p.ID) })
		})
	addReason(cmd, &reason)
	return cmd
}

func newStart(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "start PROPOSAL", Short: "Do what was proposed and approved", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			return c.start(cmd, client, args[0])
		})
}

// start uses a proposal, and watches the operation if there is one.
func (c *connection) start(cmd *cobra.Command, client *admin.Client, id string) error {
	done, err := client.StartProposal(cmd.Context(), id)
	if err != nil {
		return err
	}
	if op := done.Operation; op != nil && done.Done == "" {
		last, err := c.watch(cmd, client, op.ID)
		if err != nil {
			return err
		}
		return c.ended(cmd, client, last)
	}
	return c.show(cmd, done, func(w io.Writer) {
		fmt.Fprintln(w, printable(done.Done))
		printReceipts(w, done.Nodes)
		if done.Undo != "" {
			fmt.Fprintf(w, "undo: %s --reason %s\n", done.Undo, quoted("undo "+id))
		} else {
			fmt.Fprintln(w, "undo: there is none")
		}
	})
}

// isFor reports whether a proposal is for what p asks for.
func isFor(k *admin.Proposal, p *admin.NewProposal) bool {
	about := k.Agency == p.Agency || p.Operation != "" || p.Add != nil // which of them the node knows
	sameEpoch := p.ExpectedEpoch == "" || slices.Contains(k.Epochs, p.Agency+" "+p.ExpectedEpoch)
	return k.Kind == p.Kind && about && sameEpoch && sameAgency(k.Add, p.Add) && strings.EqualFold(k.Domain, p.Domain) && sameRelease(k.Release, p.Release) && k.Node == p.Node && p.Spool == nil &&
		k.About == p.Operation && k.Replica == p.Replica && k.Hook == p.Hook && slices.Equal(k.Without, slices.Sorted(slices.Values(p.Without)))
}

// alone reports whether the node takes agencies and complete domains on one person's word.
func (c *connection) alone(cmd *cobra.Command, client *admin.Client) (bool, error) {
	if _, err := client.Agencies(cmd.Context()); err != nil { // any answer says it
		return false, err
	}
	approval, lab := client.Approval()
	return lab || approval == "none", nil
}

// sameAgency reports whether two additions are of the same agency, and in the same way.
func sameAgency(a, b *admin.AddedAgency) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ID == b.ID && a.Source == b.Source && a.Target == b.Target && a.Parent == b.Parent && slices.Equal(slices.Sorted(slices.Values(a.Domains)), slices.Sorted(slices.Values(b.Domains)))
}

// sameRelease reports whether two releases take the same name from the same one. The node has the
// name in canonical form, which is without case.
func sameRelease(a, b *admin.ReleasedName) bool {
	if a == nil || b == nil {
		return a == b
	}
	return strings.EqualFold(a.Name, b.Name) && a.Agency == b.Agency && a.Fixed == b.Fixed
}

// propose does what a short form of a command is for, as far as one person may: it starts
// what was approved, or proposes it. ask is called before it starts something.
func (c *connection) propose(cmd *cobra.Command, client *admin.Client, p admin.NewProposal, ask func() error) error {
	known, err := client.Proposals(cmd.Context(), true)
	if err != nil {
		return err
	}
	for _, k := range known.Proposals {
		if !isFor(&k, &p) {
			continue
		}
		if k.Missing == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "proposal %s of %s is approved; starting it\n", k.ID, printable(k.Person))
			if err := ask(); err != nil {
				return err
			}
			return c.start(cmd, client, k.ID)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "it is proposed already\n")
		return c.proposed(cmd, k, false)
	}
	made, err := client.Propose(cmd.Context(), p)
	if err != nil {
		return err
	}
	if made.Missing == 0 {
		if err := ask(); err != nil {
			return err
		}
		return c.start(cmd, client, made.ID)
	}
	return c.proposed(cmd, made, false)
}

// unasked is the ask of commands that don't.
func unasked() error { return nil }

func newAbort(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{Use: "abort OPERATION", Short: "End an operation that isn't committed: its agencies open where they were", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			op, err := client.Abort(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return c.show(cmd, op, func(w io.Writer) {
				fmt.Fprintf(w, "%s of agency %s is %s\nundo: propose it again\n", op.Kind, strings.Join(op.Agencies, ", "), op.Step)
			})
		})
	addReason(cmd, &reason)
	return cmd
}

func newPublish(c *connection) *cobra.Command {
	p := admin.NewProposal{Kind: "publish"}
	cmd := c.command(&cobra.Command{
		Use: "publish OPERATION", Short: "Open a committed operation without a replica of the table that is dead", Args: cobra.ExactArgs(1),
		Long: "Open a committed operation without the word of a replica of the table's server. Only for\na server that is proven dead: an old primary that keeps one replica goes on writing.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		p.Operation = args[0]
		return c.propose(cmd, client, p, unasked)
	})
	cmd.Flags().StringVar(&p.Replica, "without-replica", "", "name of the dead replica")
	addReason(cmd, &p.Reason)
	require(cmd, "without-replica")
	return cmd
}

func newWithout(c *connection) *cobra.Command {
	p := admin.NewProposal{Kind: "without-hook"}
	cmd := c.command(&cobra.Command{Use: "without OPERATION HOOK", Short: "Let an operation go on without a hook that doesn't succeed", Args: cobra.ExactArgs(2)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			p.Operation, p.Hook = args[0], args[1]
			return c.propose(cmd, client, p, unasked)
		})
	addReason(cmd, &p.Reason)
	return cmd
}

func newTell(c *connection) *cobra.Command {
	var receipt string
	cmd := c.command(&cobra.Command{Use: "tell OPERATION HOOK", Short: "Say that an external step of an operation is done", Args: cobra.ExactArgs(2)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			op, err := client.Tell(cmd.Context(), args[0], args[1], receipt)
			if err != nil {
				return err
			}
			return c.show(cmd, op, func(w io.Writer) {
				fmt.Fprintf(w, "hook %s of operation %s is done\nundo: there is none\n", printable(args[1]), op.ID)
			})
		})
	addReason(cmd, &receipt)
	return cmd
}

func newUndoHook(c *connection) *cobra.Command {
	var reason string
	var byHand bool
	cmd := c.command(&cobra.Command{
		Use: "undo-hook OPERATION HOOK", Short: "Undo a hook of an aborted operation again, where that failed, or say that it was done by hand", Args: cobra.ExactArgs(2),
		Long: "Undo a hook of an aborted operation again, where that failed when it was aborted. It isn't\ntried if something has happened to an agency since. With --by-hand nothing is called: you\nhave undone it, and the reason is the receipt. Say it to the node that has the alarm.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		op, err := client.UndoHook(cmd.Context(), args[0], args[1], reason, byHand)
		if err != nil {
			return err
		}
		return c.show(cmd, op, func(w io.Writer) {
			fmt.Fprintf(w, "hook %s of operation %s is undone\n", printable(args[1]), op.ID)
		})
	})
	cmd.Flags().BoolVar(&byHand, "by-hand", false, "it was undone by hand")
	addReason(cmd, &reason)
	return cmd
}

func printReceipts(w io.Writer, all []admin.Receipt) {
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for _, r := range all {
		rows = append(rows, []string{r.Node, r.Standing, local(r.Until), strconv.Itoa(r.Messages), strconv.Itoa(r.Held)})
	}
	table(w, []string{"NODE", "STANDING", "UNTIL", "IN DOUBT", "HELD"}, rows)
}
