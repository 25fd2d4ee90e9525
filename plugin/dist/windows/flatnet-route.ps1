#Requires -Version 5.1
<#
.SYNOPSIS
Keeps the route from Windows to flatnet's containers in WSL2 right.

.DESCRIPTION
WSL2 gets another address whenever its virtual machine starts. This script asks the distribution for it and sets the route to the
containers' subnet over it; when all is right it changes nothing. -Install makes that permanent: a scheduled task at logon, with the
highest privileges. It starts no distribution that is not running, unless -KeepRunning says so.

Exit codes: 0 the route is right (now); 1 failed, the message says why; 3 the distribution is not running, nothing was done;
4 (-Status) the route is missing or old; 5 WSL's networking mode takes no route.

.PARAMETER Once
Look once, repair, say what was done: the default.

.PARAMETER Watch
Look when Windows' network changes and every -IntervalSeconds; say only what changes. The scheduled task does this.

.PARAMETER Install
Copy this script to %ProgramFiles%\flatnet and register the scheduled task: as the user whose WSL it is, in an administrator's terminal.
Again with other parameters replaces it.

.PARAMETER Uninstall
Take back the task, the route and the copy.

.PARAMETER Status
Say what is and change nothing. Needs no administrator.

.PARAMETER Distro
The WSL distribution with the containers. Default: WSL's default distribution.

.PARAMETER HostId
The number N of the container host, for the subnet 10.87.N.0/24. Default: 1.

.PARAMETER Subnet
The containers' subnet, if it is not 10.87.N.0/24: "ipam.subnet" of flatnet.conflist.

.PARAMETER IntervalSeconds
How often -Watch looks. Default: 60; 10 with -KeepRunning, so that WSL never finds the distribution idle (it waits 15 seconds).

.PARAMETER KeepRunning
Start the distribution when it is not running, and keep it running: WSL stops one that nobody uses, whatever runs in its containers.

.PARAMETER LogFile
Where -Watch writes what changed, a line each.

.EXAMPLE
.\flatnet-route.ps1 -Status

.EXAMPLE
.\flatnet-route.ps1 -Install -KeepRunning
#>
[CmdletBinding(DefaultParameterSetName = 'Once', SupportsShouldProcess = $true)]
param(
    [Parameter(ParameterSetName = 'Once')]
    [switch] $Once,
    [Parameter(ParameterSetName = 'Watch', Mandatory = $true)]
    [switch] $Watch,
    [Parameter(ParameterSetName = 'Install', Mandatory = $true)]
    [switch] $Install,
    [Parameter(ParameterSetName = 'Uninstall', Mandatory = $true)]
    [switch] $Uninstall,
    [Parameter(ParameterSetName = 'Status', Mandatory = $true)]
    [switch] $Status,
    [ValidatePattern('^[A-Za-z0-9._-]+$')]
    [string] $Distro,
    [ValidateRange(1, 255)]
    [int] $HostId = 1,
    [ValidatePattern('^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$')]
    [string] $Subnet,
    [ValidateRange(5, 3600)]
    [int] $IntervalSeconds = 60,
    [switch] $KeepRunning,
    [string] $LogFile
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$TaskName = 'flatnet route'

# --- Decisions: no function of this part looks at or changes the machine. -----------------------------------------------------

# 10.87.1.2 as a number.
function ConvertTo-Number([string] $Address) {
    $number = [int64] 0
    foreach ($part in $Address.Split('.')) {
        if ([int] $part -gt 255) { throw "$Address is not an IPv4 address" }
        $number = $number * 256 + [int] $part
    }
    $number
}

# The number as 10.87.1.2.
function ConvertTo-Address([int64] $Number) {
    $parts = @()
    for ($place = 0; $place -lt 4; $place++) {
        $parts = @($Number % 256) + $parts
        $Number = ($Number - $Number % 256) / 256
    }
    $parts -join '.'
}

# Whether two addresses share a network of this prefix length.
function Test-SameNetwork([string] $First, [string] $Second, [int] $PrefixLength) {
    $size = [int64] [math]::Pow(2, 32 - $PrefixLength)
    $one = ConvertTo-Number $First
    $other = ConvertTo-Number $Second
    ($one - $one % $size) -eq ($other - $other % $size)
}

# "10.87.1.0/24" as network and mask, the way route.exe wants them.
function ConvertTo-Subnet([string] $Cidr) {
    $address, $length = $Cidr.Split('/')
    if ([int] $length -lt 8 -or [int] $length -gt 30) { throw "$Cidr is no subnet for containers: its length must be 8 to 30" }
    $size = [int64] [math]::Pow(2, 32 - [int] $length)
    $number = ConvertTo-Number $address
    $network = ConvertTo-Address ($number - $number % $size)
    if ($network -ne $address) { throw "$Cidr has bits beyond its length; its network is $network/$length" }
    [pscustomobject] @{ Prefix = $Cidr; Network = $network; Mask = ConvertTo-Address (4294967296 - $size) }
}

# wsl.exe writes UTF-16 that is read as bytes: a NUL after each character.
function ConvertFrom-WslOutput([string[]] $Lines) {
    foreach ($line in $Lines) {
        $text = $line.Replace([string] [char] 0, '').Replace([string] [char] 0xFEFF, '').Trim()
        if ($text) { $text }
    }
}

# The default distribution is the one with the star, in every language.
function Select-DefaultDistro([string[]] $Lines) {
    foreach ($line in $Lines) { if ($line -match '^\*\s+(\S+)') { return $Matches[1] } }
}

# WSL's own address among many: on the interface of the default route, in the network of its gateway. Bridges have neither.
function Select-UplinkAddress([string[]] $Addresses, [string[]] $Routes) {
    $gateway = $null
    foreach ($line in $Routes) {
        if ($line -match '^default via (\d+\.\d+\.\d+\.\d+) dev (\S+)') { $gateway = $Matches[1]; $device = $Matches[2]; break }
    }
    foreach ($line in $Addresses) {
        if ($gateway -and $line -match '^\d+:\s+(\S+)\s+inet (\d+\.\d+\.\d+\.\d+)/(\d+)') {
            $name, $address, $length = $Matches[1], $Matches[2], $Matches[3]
            if ($name -eq $device -and (Test-SameNetwork $address $gateway $length)) { return $address }
        }
    }
}

# networkingMode of a .wslconfig; "nat" is WSL's default.
function Select-NetworkingMode([string[]] $Config) {
    $mode = 'nat'
    foreach ($line in $Config) { if ($line -match '^\s*networkingMode\s*=\s*"?(\w+)') { $mode = $Matches[1].ToLowerInvariant() } }
    $mode
}

# The Windows interface on WSL's network: the one whose address shares the longest prefix with WSL's.
function Select-Interface([object[]] $HostAddresses, [string] $WslAddress) {
    $HostAddresses |
        Where-Object { $_.IPAddress -ne $WslAddress -and (Test-SameNetwork $_.IPAddress $WslAddress $_.PrefixLength) } |
        Sort-Object -Property PrefixLength -Descending | Select-Object -First 1
}

# What route.exe must be told, if anything: State is right, missing, old or taken. The new route comes before the old one goes.
function Get-RoutePlan([object[]] $Routes, [string] $WslAddress, [int] $InterfaceIndex, [string] $Prefix) {
    $target = ConvertTo-Subnet $Prefix
    $where = "$($target.Network) MASK $($target.Mask)"
    $right = $false
    $actions = @()
    foreach ($route in $Routes) {
        if ($route.NextHop -eq '0.0.0.0' -or $route.InterfaceIndex -ne $InterfaceIndex) {
            return [pscustomobject] @{ State = 'taken'; Actions = @(); By = "$($route.NextHop) on interface $($route.InterfaceIndex)" }
        }
        if ($route.NextHop -eq $WslAddress) { $right = $true } else { $actions += "DELETE $where $($route.NextHop)" }
    }
    $state = if ($actions) { 'old' } elseif ($right) { 'right' } else { 'missing' }
    if (-not $right) { $actions = @("ADD $where $WslAddress METRIC 1 IF $InterfaceIndex") + $actions }
    [pscustomobject] @{ State = $state; Actions = $actions; By = $null }
}

# What a person can do in a networking mode that takes no route; nothing where a route works.
function Get-ModeAdvice([string] $Mode) {
    switch ($Mode) {
        { $_ -in 'nat', 'bridged' } { return }
        'wsl1' { return 'this distribution is WSL 1, which has no network of its own: wsl --set-version <distribution> 2' }
        default {
            return "WSL's networking mode is ${Mode}: Windows cannot route into it. Set networkingMode=nat under [wsl2] in " +
            "$env:USERPROFILE\.wslconfig and run 'wsl --shutdown', or run the gateway inside WSL (see README.md beside this script)"
        }
    }
}

# The scheduled task: at logon, as this user with the highest privileges, started again if it ends.
function Get-TaskXml([string] $User, [string] $Program, [string] $Arguments) {
    $safe = $User, $Program, $Arguments | ForEach-Object { [System.Security.SecurityElement]::Escape($_) }
    @"
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>Keeps the route to flatnet's containers in WSL2 right.</Description></RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Repetition><Interval>PT1M</Interval><StopAtDurationEnd>false</StopAtDurationEnd></Repetition>
      <Enabled>true</Enabled>
      <UserId>$($safe[0])</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author"><UserId>$($safe[0])</UserId><LogonType>InteractiveToken</LogonType><RunLevel>HighestAvailable</RunLevel></Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Enabled>true</Enabled>
  </Settings>
  <Actions Context="Author"><Exec><Command>$($safe[1])</Command><Arguments>$($safe[2])</Arguments></Exec></Actions>
</Task>
"@
}

# --- The machine: each look and each change is one small function, which the tests replace. -----------------------------------

function Invoke-Native([string] $Program, [string[]] $Arguments) {
    $ErrorActionPreference = 'Continue' # or Windows PowerShell ends at the first line on standard error
    $lines = @(& (Join-Path $env:SystemRoot "System32\$Program") @Arguments 2>&1 | ForEach-Object { "$_" })
    [pscustomobject] @{ ExitCode = $LASTEXITCODE; Lines = $lines }
}

function Invoke-Route([string] $Command) { Invoke-Native 'route.exe' $Command.Split(' ') }

function Invoke-Wsl([string[]] $Arguments) {
    $answer = Invoke-Native 'wsl.exe' $Arguments
    [pscustomobject] @{ ExitCode = $answer.ExitCode; Lines = @(ConvertFrom-WslOutput $answer.Lines) }
}

function Get-RouteTable([string] $Prefix) {
    Get-NetRoute -AddressFamily IPv4 -DestinationPrefix $Prefix -PolicyStore ActiveStore -ErrorAction SilentlyContinue |
        Select-Object -Property NextHop, InterfaceIndex, InterfaceAlias
}

function Get-HostAddress { Get-NetIPAddress -AddressFamily IPv4 | Select-Object -Property IPAddress, PrefixLength, InterfaceIndex, InterfaceAlias }

function Get-WslConfig {
    $file = Join-Path $env:USERPROFILE '.wslconfig'
    if (Test-Path -LiteralPath $file) { Get-Content -LiteralPath $file }
}

function Test-Administrator {
    $user = [System.Security.Principal.WindowsPrincipal] [System.Security.Principal.WindowsIdentity]::GetCurrent()
    $user.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Returns when an address of Windows changes, or after that many seconds.
function Wait-Change([int] $Seconds) {
    if (-not (Get-EventSubscriber -SourceIdentifier 'flatnet' -ErrorAction SilentlyContinue)) {
        $network = [System.Net.NetworkInformation.NetworkChange]
        Register-ObjectEvent -InputObject $network -EventName NetworkAddressChanged -SourceIdentifier 'flatnet' | Out-Null
    }
    Wait-Event -SourceIdentifier 'flatnet' -Timeout $Seconds | Out-Null
    Get-Event -SourceIdentifier 'flatnet' -ErrorAction SilentlyContinue | Remove-Event
}

function Get-InstallFolder { Join-Path $env:ProgramFiles 'flatnet' }

# --- The verbs. ----------------------------------------------------------------------------------------------------------------

function ConvertTo-Answer([int] $ExitCode, [string] $Message) { [pscustomobject] @{ ExitCode = $ExitCode; Message = $Message } }

function Find-Distro([string] $Wanted) {
    $all = Invoke-Wsl '--list', '--quiet'
    if ($all.ExitCode -ne 0 -or $all.Lines.Count -eq 0) { throw 'WSL has no distribution: wsl --install' }
    $name = if ($Wanted) { $Wanted } else { Select-DefaultDistro (Invoke-Wsl '--list', '--verbose').Lines }
    if ($all.Lines -notcontains $name) { throw "WSL has no distribution '$name', but $($all.Lines -join ', ')" }
    $name
}

# Asks the running distribution for its mode and address; asking starts a stopped one.
function Get-Wsl([string] $Name) {
    $mode = Invoke-Wsl '-d', $Name, '--exec', 'wslinfo', '--networking-mode' # which WSL before 2.0 lacks
    $mode = if ($mode.ExitCode -eq 0) { $mode.Lines[-1] } else { Select-NetworkingMode @(Get-WslConfig) }
    $addresses = Invoke-Wsl '-d', $Name, '--exec', 'ip', '-4', '-o', 'addr', 'show'
    $routes = Invoke-Wsl '-d', $Name, '--exec', 'ip', '-4', 'route', 'show', 'default'
    if ($addresses.ExitCode -ne 0) { throw "$Name does not answer 'ip addr': $($addresses.Lines -join ' ') (is iproute2 installed there?)" }
    [pscustomobject] @{ Mode = $mode; Address = Select-UplinkAddress $addresses.Lines $routes.Lines }
}

# The whole of it, once: look, decide, and unless -ReportOnly, act and look again.
function Sync-Route {
    [CmdletBinding(SupportsShouldProcess = $true)]
    param([string] $Wanted, [string] $Prefix, [switch] $ReportOnly, [switch] $StartDistro)

    $name = Find-Distro $Wanted
    if (-not $StartDistro -and (Invoke-Wsl '--list', '--running', '--quiet').Lines -notcontains $name) {
        return ConvertTo-Answer 3 "$name is not running: start it, or use -KeepRunning"
    }
    $wsl = Get-Wsl $name
    $advice = Get-ModeAdvice $wsl.Mode
    if ($advice) { return ConvertTo-Answer 5 $advice }
    if (-not $wsl.Address) { return ConvertTo-Answer 1 "$name has no address beside a default route: wsl --shutdown, and start it again" }
    $interface = Select-Interface @(Get-HostAddress) $wsl.Address
    if (-not $interface) { return ConvertTo-Answer 1 "Windows has no address in the network of $name ($($wsl.Address)): wsl --shutdown" }

    $plan = Get-RoutePlan @(Get-RouteTable $Prefix) $wsl.Address $interface.InterfaceIndex $Prefix
    $goal = "$Prefix via $($wsl.Address) ($name) on $($interface.InterfaceAlias)"
    if ($plan.State -eq 'right') { return ConvertTo-Answer 0 "right: $goal" }
    if ($plan.State -eq 'taken') {
        return ConvertTo-Answer 1 "$Prefix goes elsewhere: $($plan.By). Take that away ('route print 10.*' shows it), or give flatnet another subnet"
    }
    $todo = ($plan.Actions | ForEach-Object { "route $_" }) -join '; '
    if ($ReportOnly) { return ConvertTo-Answer 4 "$($plan.State): $goal. To do, as administrator: $todo" }
    if (-not (Test-Administrator)) { return ConvertTo-Answer 1 "the route is $($plan.State), and to set it needs an administrator: $todo" }
    $said = @()
    foreach ($action in $plan.Actions) {
        if ($PSCmdlet.ShouldProcess("route $action", 'Run')) { $said += (Invoke-Route $action).Lines }
    }
    if ($WhatIfPreference) { return ConvertTo-Answer 0 "would set $goal" }
    $after = Get-RoutePlan @(Get-RouteTable $Prefix) $wsl.Address $interface.InterfaceIndex $Prefix
    if ($after.State -ne 'right') { return ConvertTo-Answer 1 "the route is $($after.State) even after '$todo': $($said -join ' ')" }
    ConvertTo-Answer 0 "set: $goal (was $($plan.State))"
}
# Ends when its own file goes: then somebody has uninstalled it.
function Watch-Route([string] $Wanted, [string] $Prefix, [int] $Seconds, [bool] $StartDistro, [string] $Log) {
    $before = $null
    while (Test-Path -LiteralPath $PSCommandPath) {
        try { $now = (Sync-Route -Wanted $Wanted -Prefix $Prefix -StartDistro:$StartDistro).Message } catch { $now = "failed: $_" }
        if ($now -ne $before) {
            $line = "$(Get-Date -Format s) $now"
            if ($Log) { Add-Content -LiteralPath $Log -Value $line } else { Write-Output $line }
            $before = $now
        }
        Wait-Change $Seconds
    }
}

function Install-Task {
    [CmdletBinding(SupportsShouldProcess = $true)]
    param([string] $Wanted, [string] $Prefix, [int] $Seconds, [switch] $StartDistro)

    if (-not (Test-Administrator)) { return ConvertTo-Answer 1 '-Install needs an administrator: open a terminal with "Run as administrator"' }
    $name = Find-Distro $Wanted
    $folder = Get-InstallFolder # where only administrators write: what runs with their rights must not be anybody's to change
    $script = Join-Path $folder 'flatnet-route.ps1'
    # Without --headless there is a window: Windows Terminal does not heed -WindowStyle Hidden.
    $arguments = "--headless $env:SystemRoot\System32\WindowsPowerShell\v1.0\powershell.exe -NoProfile -NonInteractive " +
    "-ExecutionPolicy Bypass -File `"$script`" -Watch -Distro $name -Subnet $Prefix -IntervalSeconds $Seconds -LogFile `"$(Join-Path $folder 'route.log')`""
    if ($StartDistro) { $arguments += ' -KeepRunning' }
    $user = [System.Security.Principal.WindowsIdentity]::GetCurrent().Name
    $xml = Get-TaskXml $user (Join-Path $env:SystemRoot 'System32\conhost.exe') $arguments
    if ($PSCmdlet.ShouldProcess($script, 'Copy this script to')) {
        New-Item -ItemType Directory -Force -Path $folder | Out-Null
        if ($PSCommandPath -ne $script) { Copy-Item -LiteralPath $PSCommandPath -Destination $script -Force }
    }
    if ($PSCmdlet.ShouldProcess("$TaskName, at the logon of $user", 'Register and start the scheduled task')) {
        Stop-ScheduledTask -TaskName $TaskName -ErrorAction SilentlyContinue
        Register-ScheduledTask -TaskName $TaskName -Xml $xml -Force | Out-Null
        Start-ScheduledTask -TaskName $TaskName
    }
    if ($WhatIfPreference) { return ConvertTo-Answer 0 'nothing was changed' }
    ConvertTo-Answer 0 "the task '$TaskName' keeps $Prefix routed to $name, at each logon of $user and now; its log is $folder\route.log"
}

function Uninstall-Task {
    [CmdletBinding(SupportsShouldProcess = $true)]
    param([string] $Prefix)

    if (-not (Test-Administrator)) { return ConvertTo-Answer 1 '-Uninstall needs an administrator: open a terminal with "Run as administrator"' }
    $folder = Get-InstallFolder
    if ((Get-ScheduledTask -TaskName $TaskName -ErrorAction SilentlyContinue) -and $PSCmdlet.ShouldProcess($TaskName, 'Remove the scheduled task')) {
        Stop-ScheduledTask -TaskName $TaskName -ErrorAction SilentlyContinue
        Unregister-ScheduledTask -TaskName $TaskName -Confirm:$false
    }
    $target = ConvertTo-Subnet $Prefix
    foreach ($route in @(Get-RouteTable $Prefix | Where-Object { $_.InterfaceAlias -like 'vEthernet (WSL*' -and $_.NextHop -ne '0.0.0.0' })) {
        $action = "DELETE $($target.Network) MASK $($target.Mask) $($route.NextHop)"
        if ($PSCmdlet.ShouldProcess("route $action", 'Run')) { Invoke-Route $action | Out-Null }
    }
    if ((Test-Path -LiteralPath $folder) -and $PSCmdlet.ShouldProcess($folder, 'Remove')) { Remove-Item -LiteralPath $folder -Recurse -Force }
    if ($WhatIfPreference) { return ConvertTo-Answer 0 'nothing was changed' }
    ConvertTo-Answer 0 "the task '$TaskName', the route to $Prefix and $folder are gone"
}

if ($MyInvocation.InvocationName -eq '.') { return } # the tests take the functions

try {
    if ($Subnet -and $PSBoundParameters.ContainsKey('HostId')) { throw '-HostId and -Subnet say the same thing: give one of them' }
    $prefix = (ConvertTo-Subnet $(if ($Subnet) { $Subnet } else { "10.87.$HostId.0/24" })).Prefix
    $seconds = if ($KeepRunning -and -not $PSBoundParameters.ContainsKey('IntervalSeconds')) { 10 } else { $IntervalSeconds }
    switch ($PSCmdlet.ParameterSetName) {
        'Watch' { Watch-Route $Distro $prefix $seconds $KeepRunning $LogFile; $answer = ConvertTo-Answer 0 "$PSCommandPath is gone" }
        'Install' { $answer = Install-Task -Wanted $Distro -Prefix $prefix -Seconds $seconds -StartDistro:$KeepRunning }
        'Uninstall' { $answer = Uninstall-Task -Prefix $prefix }
        'Status' { $answer = Sync-Route -Wanted $Distro -Prefix $prefix -ReportOnly }
        default { $answer = Sync-Route -Wanted $Distro -Prefix $prefix -StartDistro:$KeepRunning }
    }
} catch {
    $answer = ConvertTo-Answer 1 "failed: $_"
}
Write-Output $answer.Message
exit $answer.ExitCode
