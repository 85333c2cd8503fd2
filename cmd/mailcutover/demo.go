package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/demo"
	"mailcutover/identity/report"
)

// newDemoCommand shows the main job in one process.
func newDemoCommand(c *connection) *cobra.Command {
	var o demo.Options
	var fault, logFile, language string
	var incident bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch an agency being cut over and back under traffic, on this machine alone",
		Long: "Start two platforms, an MX relay and a node on loopback, send generated mail to the 790\n" +
			"mailboxes of three agencies, cut one agency over and roll it back, and compare what\n" +
			"the MX saw answered with 250 with what the platforms stored. Exit code 1 if a promise\n" +
			"was broken. Nothing is left behind.\n\n" +
			"With --incident: a list with one column sorted without the others, how the check\n" +
			"refuses it, and what it would have done to 790 mailboxes, shown with real mail.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Log, o.Break = cmd.OutOrStdout(), io.Discard, demo.Break(fault)
			if faults := []demo.Break{demo.BreakNothing, demo.BreakRoute, demo.BreakLose, demo.BreakDuplicate}; !slices.Contains(faults, o.Break) {
				return &usageError{err: fmt.Errorf("--break %q: want route, lose or duplicate", fault), command: cmd.CommandPath()}
			}
			if o.Rate < 1 || o.Phase <= 0 {
				return &usageError{err: fmt.Errorf("--rate %d, --phase %s: want at least one message a second, and a time above 0", o.Rate, o.Phase), command: cmd.CommandPath()}
			}
			spoken, err := report.ParseLanguage(language)
			if err != nil {
				return &usageError{err: fmt.Errorf("--language: %w", err), command: cmd.CommandPath()}
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
			if incident {
				color := isTerminal(o.Out) && !c.noColor && os.Getenv("NO_COLOR") == ""
				return demo.Incident(ctx, demo.IncidentOptions{Out: o.Out, Log: o.Log, Language: spoken, Color: color, Pause: o.Phase})
			}
			return demo.Run(ctx, o)
		},
	}
	cmd.Flags().StringVar(&fault, "break", "", "plant a fault that the check must find: route, lose or duplicate")
	cmd.Flags().BoolVar(&o.Stay, "stay", false, "go on afterwards, and print what to try")
	cmd.Flags().IntVar(&o.Rate, "rate", 300, "messages per second")
	cmd.Flags().DurationVar(&o.Phase, "phase", 3*time.Second, "how long mail flows before, between and after the switches, or a part of the incident stays on the screen")
	cmd.Flags().BoolVar(&incident, "incident", false, "show the incident: a list sorted in one column, refused, and what it would have done")
	cmd.Flags().StringVar(&language, "language", "en", "of the incident: en or de")
	cmd.Flags().StringVar(&logFile, "log", "", "append the node's log to this file")
	for _, other := range []string{"break", "stay", "rate"} {
		cmd.MarkFlagsMutuallyExclusive("incident", other)
	}
	return cmd
}
