# Hooks for Exchange 2016 and 2019. To be run on an Exchange management host, reached by a
# command of yours, for example over SSH with a key that may run nothing else:
#
#     hooks:
#       close:       {command: [/usr/bin/ssh, exchange-admin, hook, close]}
#       open:        {command: [/usr/bin/ssh, exchange-admin, hook, open]}
#       forward_on:  {command: [/usr/bin/ssh, exchange-admin, hook, forward-on]}
#       forward_off: {command: [/usr/bin/ssh, exchange-admin, hook, forward-off]}
#
# This is an example that was not run against an Exchange: read it, adapt it, and try it
# on a test mailbox. Each action may be repeated.
param([Parameter(Mandatory)] [ValidateSet('close', 'open', 'forward-on', 'forward-off')] [string] $Hook)

$ErrorActionPreference = 'Stop'
[Console]::InputEncoding = [Console]::OutputEncoding = New-Object System.Text.UTF8Encoding $false
if (-not (Get-Command Set-CASMailbox -ErrorAction SilentlyContinue)) {
    Add-PSSnapin Microsoft.Exchange.Management.PowerShell.SnapIn
}

function Set-Access([string] $Id, [bool] $Enabled) {
    Set-CASMailbox -Identity $Id -ImapEnabled $Enabled -PopEnabled $Enabled -MAPIEnabled $Enabled `
        -EwsEnabled $Enabled -ActiveSyncEnabled $Enabled -OWAEnabled $Enabled
}

while ($null -ne ($line = [Console]::In.ReadLine())) {
    $box = $line | ConvertFrom-Json
    if (-not $box.mailbox) { continue } # the first line, about the operation
    $answer = [ordered]@{ mailbox = $box.mailbox; ok = $true }
    try {
        switch ($Hook) {
            'close' { Set-Access $box.mailbox $false }
            'open' { Set-Access $box.mailbox $true }
            'forward-on' {
                # The coexistence address, which is read back from the directory afterwards; without
                # identity.coexistence the address on the other platform.
                $to = if ($box.forward_to) { $box.forward_to } else { $box.other_address }
                if (-not $to -or $to -eq $box.address) { throw 'no address to forward to' }
                Set-Mailbox -Identity $box.mailbox -ForwardingSmtpAddress $to -DeliverToMailboxAndForward $false
                $set = Get-Mailbox -Identity $box.mailbox
                if (-not $set.ForwardingSmtpAddress -or $set.DeliverToMailboxAndForward) { throw 'the forward does not read back' }
            }
            'forward-off' {
                Set-Mailbox -Identity $box.mailbox -ForwardingSmtpAddress $null -DeliverToMailboxAndForward $false
                if ((Get-Mailbox -Identity $box.mailbox).ForwardingSmtpAddress) { throw 'the forward is still there' }
            }
        }
    }
    catch {
        $answer.ok = $false
        $answer.error = $_.Exception.Message
    }
    [Console]::Out.WriteLine(($answer | ConvertTo-Json -Compress))
}
