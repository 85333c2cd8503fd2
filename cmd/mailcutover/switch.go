package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
)

func newCutover(c *connection) *cobra.Command {
	return newSwitch(c, operation.Cutover, &cobra.Command{
		Use: "cutover AGENCY", Short: "Move an agency to its target platform",
		Example: "  mailcutover agency cutover health --reason 'wave 3, change 4711'",
	})
}

func newRollback(c *connection) *cobra.Command {
	return newSwitch(c, operation.Rollback, &cobra.Command{
		Use: "rollback AGENCY", Short: "Bring an agency back to its source platform",
		Long:    "Bring an agency, and its pilot groups on the target, back to the source platform.",
		Example: "  mailcutover agency rollback health --reason 'calendars are missing'",
	})
}

// newSwitch returns cutover or rollback. Where others have to approve, it proposes, or starts
// what they have approved.
func newSwitch(c *connection, kind operation.Kind, cmd *cobra.Command) *cobra.Command {
	var reason, epoch string
	var without []string
	var yes, emergency, dead bool
	cmd.Args = cobra.ExactArgs(1)
	c.command(cmd, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		if dead && !emergency {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("--target-dead goes with --emergency only")}
		}
		a, err := client.Agency(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		ask := func() error {
			if yes || !isTerminal(cmd.InOrStdin()) {
				return nil
			}
			return confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), kind, a)
		}
		if approval, _ := client.Approval(); approval != "none" && !emergency {
			return c.propose(cmd, client, admin.NewProposal{Kind: string(kind), Agency: a.ID, ExpectedEpoch: firstOf(epoch, a.Epoch), Without: without, Reason: reason}, ask)
		}
		if err := ask(); err != nil {
			return err
		}
		op, err := client.Switch(cmd.Context(), kind, a.ID, admin.NewSwitch{
			Reason: reason, ExpectedEpoch: firstOf(epoch, a.Epoch), Without: without, Emergency: emergency, TargetDead: dead,
		})
		if err != nil {
			return err
		}
		op, err = c.watch(cmd, client, op.ID)
		if err != nil {
			return err
		}
		if emergency {
			fmt.Fprintf(cmd.ErrOrStderr(), "a second person has to confirm it: mailcutover emergency confirm %s --reason ...\n", op.ID)
		}
		return c.ended(cmd, client, op)
	})
	addReason(cmd, &reason)
	addEpoch(cmd, &epoch)
	cmd.Flags().StringSliceVar(&without, "without", nil, "hook that is left out; may be repeated")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask on a terminal")
	if kind == operation.Rollback {
		cmd.Flags().BoolVar(&emergency, "emergency", false, "on your word alone: checks and freezes don't keep it back; a second person confirms it afterwards")
		cmd.Flags().BoolVar(&dead, "target-dead", false, "with --emergency: what is under way at the target is listed, not awaited")
	}
	return cmd
}

// confirm lets the operator type the agency's name.
func confirm(in io.Reader, out io.Writer, kind operation.Kind, a admin.Agency) error {
	to := a.Target
	if kind == operation.Rollback {
		to = a.Source
	}
	fmt.Fprintf(out, "%s of agency %s: %d mailboxes go from %s to %s.\n", kind, a.ID, a.Mailboxes, a.Platform, to)
	if kind == operation.Rollback && len(a.Children) > 0 {
		fmt.Fprintf(out, "Pilot groups that are on %s go too: %s.\n", a.Target, strings.Join(a.Children, ", "))
	}
	return typed(in, out, a.ID)
}

// watch shows an operation's progress until it is no longer under way. An interrupt
// ends the watching, not the operation.
func (c *connection) watch(cmd *cobra.Command, client *admin.Client, id string) (admin.Operation, error) {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	p := &progress{out: cmd.ErrOrStderr(), live: isTerminal(cmd.ErrOrStderr())}
	op, err := client.Watch(ctx, id, p.show)
	p.end()
	if err == nil {
		return op, nil
	}
	goesOn := "the operation goes on at the node: mailcutover operation watch " + id
	if ctx.Err() != nil && cmd.Context().Err() == nil {
		return op, withHint(fmt.Errorf("%w: interrupted: %w", admin.ErrUnreachable, context.Canceled), goesOn)
	}
	// The node may have stopped: what became of the operation, only it can say.
	now, askErr := client.Operation(cmd.Context(), id)
	refused, answers := errors.AsType[*admin.Problem](askErr)
	switch {
	case answers:
		return op, refused // such as that it knows no such operation
	case askErr != nil:
		return op, withHint(err, "the node can't be asked any more; one that stops aborts what it hasn't committed. Once it runs again: mailcutover operation show "+id)
	case now.Running:
		return now, withHint(err, goesOn)
	default:
		p.show(now)
		p.end()
		return now, nil
	}
}

// progress shows an operation's steps: one line that is rewritten on a terminal, else a
// line for each thing that is new.
type progress struct {
	out  io.Writer
	live bool
	last string
	wide int
}

func (p *progress) show(op admin.Operation) {
	line := op.Step
	if op.Waiting != "" && !op.Ended {
		line += ", waiting: " + op.Waiting
	}
	if p.live {
		if op.Closed != nil {
			line += ", closed for " + seconds(op.ClosedFor)
		}
	}
	p.line(string(op.Kind) + " " + op.Agency + ": " + line)
}

// line shows what is new.
func (p *progress) line(line string) {
	line = printable(line)
	if p.live {
		fmt.Fprintf(p.out, "\r%-*s", p.wide, line)
		p.wide = max(p.wide, len(line))
		return
	}
	if line != p.last {
		fmt.Fprintln(p.out, line)
		p.last = line
	}
}

// end leaves the rewritten line.
func (p *progress) end() {
	if p.live && p.wide > 0 {
		fmt.Fprintln(p.out)
	}
}

// ended prints what an operation changed and the way back, or why it didn't.
func (c *connection) ended(cmd *cobra.Command, client *admin.Client, op admin.Operation) error {
	if op.Step != string(operation.StepDone) {
		if err := c.show(cmd, op, func(io.Writer) {}); err != nil {
			return err
		}
		err := fmt.Errorf("%s of agency %s ended as %s: %s", op.Kind, op.Agency, op.Step, op.Error)
		if op.Ended {
			return withHint(err, "the agency is where it was; see mailcutover agency show "+op.Agency)
		}
		return withHint(err, "the agency stays closed; see mailcutover alarm list")
	}
	if op.Kind == string(operation.Remap) {
		return c.show(cmd, op, func(w io.Writer) {
			fmt.Fprintf(w, "remap of agency %s is done: the new mappings are in force, closed for %s\n", strings.Join(op.Agencies, ", "), seconds(op.ClosedFor))
			fmt.Fprintln(w, "undo: mailcutover mailbox import FILE.csv --remap, with what these mailboxes had before")
		})
	}
	back := "rollback"
	if op.Kind == string(operation.Rollback) {
		back = "cutover"
	}
	a, err := client.Agency(cmd.Context(), op.Agency)
	if err != nil {
		return err
	}
	runs, _ := client.Recalls(cmd.Context(), "") // the switch is done, whether or not this can be told
	return c.show(cmd, op, func(w io.Writer) {
		fmt.Fprintf(w, "%s of agency %s is done: on %s in epoch %s, closed for %s\n", op.Kind, strings.Join(op.Agencies, ", "), a.Platform, a.Epoch, seconds(op.ClosedFor))
		printCanaries(w, op.Canaries)
		for i := range runs.Recalls {
			if r := &runs.Recalls[i]; r.Operation == op.ID {
				fmt.Fprintf(w, "mail on %s is brought to %s: mailcutover recall status %s --watch\n", r.From, r.To, r.ID)
			}
		}
		for _, id := range op.Agencies { // pilot groups that a rollback took along go back each by itself
			fmt.Fprintf(w, "undo: mailcutover agency %s %s --reason %s\n", back, id, quoted("undo "+op.ID))
		}
	})
}
