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
	cmd := &cobra.Command{Use: "operation", Short: "Cutovers and rollbacks: list, show, watch"}
	var agency string
	list := c.command(&cobra.Command{Use: "list", Short: "The operations of the node's journal, the newest last", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			ops, err := client.Operations(cmd.Context(), agency)
			if err != nil {
				return err
			}
			if ops.Unreadable != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", printable(ops.Unreadable))
			}
			return c.show(cmd, ops.Operations, func(w io.Writer) {
				var rows [][]string
				for _, op := range ops.Operations {
					rows = append(rows, []string{op.ID, op.Kind, strings.Join(op.Agencies, ","), op.Step, local(&op.Started), closedFor(op), op.Person, op.Reason})
				}
				table(w, []string{"OPERATION", "KIND", "AGENCIES", "STEP", "STARTED", "CLOSED FOR", "PERSON", "REASON"}, rows)
			})
		})
	list.Flags().StringVar(&agency, "agency", "", "only those of this agency")
	show := c.command(&cobra.Command{Use: "show OPERATION", Short: "One operation", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
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
	cmd.AddCommand(list, show, watch)
	return cmd
}

func closedFor(op admin.Operation) string {
	if op.Closed == nil {
		return ""
	}
	return seconds(op.ClosedFor)
}

func printOperation(w io.Writer, op admin.Operation) {
	pairs(w, [2]string{"operation", op.ID}, [2]string{"kind", op.Kind}, [2]string{"agencies", strings.Join(op.Agencies, ", ")},
		[2]string{"person", op.Person}, [2]string{"reason", op.Reason}, [2]string{"step", op.Step}, [2]string{"running", yesNo(op.Running)},
		[2]string{"started", local(&op.Started)}, [2]string{"closed", local(op.Closed)}, [2]string{"opened", local(op.Opened)},
		[2]string{"closed for", closedFor(op)}, [2]string{"waiting", op.Waiting}, [2]string{"error", op.Error})
}
