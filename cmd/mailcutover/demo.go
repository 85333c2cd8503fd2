package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"mailcutover/demo"
)

// newDemoCommand shows the main job in one process.
func newDemoCommand() *cobra.Command {
	var o demo.Options
	var fault, logFile string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch an agency being cut over and back under traffic, on this machine alone",
		Long: "Start two platforms, an MX relay and a node on loopback, send generated mail to the 790\n" +
			"mailboxes of three agencies, cut one agency over and roll it back, and compare what\n" +
			"the MX saw answered with 250 with what the platforms stored. Exit code 1 if a promise\n" +
			"was broken. Nothing is left behind.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Log, o.Break = cmd.OutOrStdout(), io.Discard, demo.Break(fault)
			if faults := []demo.Break{demo.BreakNothing, demo.BreakRoute, demo.BreakLose, demo.BreakDuplicate}; !slices.Contains(faults, o.Break) {
				return &usageError{err: fmt.Errorf("--break %q: want route, lose or duplicate", fault), command: cmd.CommandPath()}
			}
			if logFile != "" {
				f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
				if err != nil {
					return fmt.Errorf("open the log: %w", err)
				}
				defer f.Close()
				o.Log = f
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return demo.Run(ctx, o)
		},
	}
	cmd.Flags().StringVar(&fault, "break", "", "plant a fault that the check must find: route, lose or duplicate")
	cmd.Flags().BoolVar(&o.Stay, "stay", false, "go on afterwards, and print what to try")
	cmd.Flags().IntVar(&o.Rate, "rate", 0, "messages per second (default 300)")
	cmd.Flags().DurationVar(&o.Phase, "phase", 0, "how long mail flows before, between and after the switches (default 3s)")
	cmd.Flags().StringVar(&logFile, "log", "", "append the node's log to this file")
	return cmd
}
