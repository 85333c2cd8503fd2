package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newOperationCommand returns the commands about operations.
func newOperationCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "operation", Short: "Operations: plan, propose, approve, start, watch, abort; list, show"}
	var agency string
	list := c.command(&cobra.Command{Use: "list", Short: "Operations of all nodes, the newest last, and what is proposed", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			ops, err := client.Operations(cmd.Context(), agency)
			if err != nil {
				return err
			}
			if ops.Unreadable != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", printable(ops.Unreadable))
			}
			proposed, err := client.Proposals(cmd.Context(), true)
			if err != nil {
				return err
			}
			for _, text := range proposed.Unreadable {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", printable(text))
			}
			both := struct {
				Operations []admin.Operation `json:"operations"`
				Proposals  []admin.Proposal  `json:"proposals"`
			}{ops.Operations, ofAgency(proposed.Proposals, agency)}
			return c.show(cmd, both, func(w io.Writer) {
				var rows [][]string
				for _, op := range ops.Operations {
					rows = append(rows, []string{op.ID, op.Kind, strings.Join(op.Agencies, ","), op.Step, local(&op.Started), closedFor(op), op.Person, op.Reason})
				}
				table(w, []string{"OPERATION", "KIND", "AGENCIES", "STEP", "STARTED", "CLOSED FOR", "PERSON", "REASON"}, rows)
				printProposals(w, both.Proposals)
			})
		})
	list.Flags().StringVar(&agency, "agency", "", "only those of this agency")
	show := c.command(&cobra.Command{Use: "show ID", Short: "One operation or proposal", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			p, err := client.Proposal(cmd.Context(), args[0])
			if err == nil {
				return c.show(cmd, p, func(w io.Writer) { printProposal(w, p) })
			}
			op, err := client.Operation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, op, func(w io.Writer) { printOperation(w, op) })
		})
	watch := c.command(&cobra.Command{Use: "watch OPERATION", Short: "Progress of an operation until it ends; interrupting leaves it alone", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			op, err := c.watch(cmd, client, args[0])
			if err != nil {
				return err
			}
			return c.ended(cmd, client, op)
		})
	cmd.AddCommand(newPlan(c), newPropose(c), newApprove(c), newWithdraw(c), newStart(c), watch, newAbort(c), newPublish(c), newWithout(c), newTell(c), newUndoHook(c), list, show)
	return cmd
}

func closedFor(op admin.Operation) string {
	if op.Closed == nil {
		return ""
	}
	return seconds(op.ClosedFor)
}

func printOperation(w io.Writer, op admin.Operation) {
	note := func(set bool, text string) string {
		if set {
			return text
		}
		return ""
	}
	pairs(w, [2]string{"operation", op.ID}, [2]string{"kind", op.Kind}, [2]string{"agencies", strings.Join(op.Agencies, ", ")},
		[2]string{"emergency", note(op.Emergency, "yes: on one person's word")}, [2]string{"target", note(op.TargetDead, "said to be dead")},
		[2]string{"person", op.Person}, [2]string{"reason", op.Reason}, [2]string{"step", op.Step}, [2]string{"node", op.Node}, [2]string{"running", yesNo(op.Running)},
		[2]string{"started", local(&op.Started)}, [2]string{"closed", local(op.Closed)}, [2]string{"opened", local(op.Opened)},
		[2]string{"closed for", closedFor(op)}, [2]string{"waiting", op.Waiting}, [2]string{"plan", op.Plan}, [2]string{"error", op.Error},
		[2]string{"without nodes", strings.Join(op.Fenced, ", ")}, [2]string{"late nodes", strings.Join(op.Late, ", ")})
	if len(op.Hooks) > 0 {
		var rows [][]string
		for _, h := range op.Hooks {
			rows = append(rows, []string{h.Name, h.Point, h.Status, h.Receipt, h.Error, h.Person})
		}
		fmt.Fprintln(w)
		table(w, []string{"HOOK", "POINT", "STATUS", "RECEIPT", "ERROR", "PERSON"}, rows)
	}
	if len(op.Nodes) > 0 {
		var rows [][]string
		for _, n := range op.Nodes {
			rows = append(rows, []string{n.Node, n.State, n.Text})
		}
		fmt.Fprintln(w)
		table(w, []string{"NODE", "STATE", "TEXT"}, rows)
	}
	for _, text := range op.Listed {
		fmt.Fprintf(w, "not awaited: %s\n", printable(text))
	}
	printCanaries(w, op.Canaries)
}

// printCanaries says what was tried after a switch.
func printCanaries(w io.Writer, all []admin.OperationCanary) {
	for _, c := range all {
		mark := "canary of " + c.Agency
		if !c.OK {
			mark += " FAILED"
		}
		for _, text := range []string{c.Mail, c.Login} {
			if text != "" {
				fmt.Fprintf(w, "%s: %s\n", mark, oneLine(text))
			}
		}
	}
}
