# Tests of flatnet-route.ps1 (Pester 5) in a make-believe Windows: its routing table, its WSL and its rights are variables.
# Decisions are tables in cases.json.

BeforeDiscovery {
    $tables = Get-Content -Raw -LiteralPath "$PSScriptRoot/cases.json" | ConvertFrom-Json
    $plans = $tables.plans | ForEach-Object { @{ Name = $_.name; Case = $_ } }
    $uplinks = $tables.uplinks | ForEach-Object { @{ Name = $_.name; Case = $_ } }
    $windows = $env:OS -eq 'Windows_NT'
}

BeforeAll {
    $shipped = "$PSScriptRoot/../../plugin/dist/windows/flatnet-route.ps1"
    . $shipped
}

Describe 'Get-RoutePlan' {
    It '<Name>' -ForEach $plans {
        $plan = Get-RoutePlan @($Case.routes) $Case.address $Case.interface $Case.subnet
        $plan.State | Should -Be $Case.state
        ($plan.Actions -join "`n") | Should -Be (@($Case.actions) -join "`n")
    }
}

Describe 'Select-UplinkAddress' {
    It '<Name>' -ForEach $uplinks {
        $found = Select-UplinkAddress @($Case.addresses) @($Case.routes)
        $found | Should -Be $Case.expect
    }
}

Describe 'ConvertTo-Subnet' {
    It 'knows network and mask of <Cidr>' -ForEach @(
        @{ Cidr = '10.87.1.0/24'; Network = '10.87.1.0'; Mask = '255.255.255.0' }
        @{ Cidr = '10.87.128.0/17'; Network = '10.87.128.0'; Mask = '255.255.128.0' }
        @{ Cidr = '10.87.1.252/30'; Network = '10.87.1.252'; Mask = '255.255.255.252' }
        @{ Cidr = '10.0.0.0/8'; Network = '10.0.0.0'; Mask = '255.0.0.0' }
    ) {
        $parsed = ConvertTo-Subnet $Cidr
        $parsed.Network | Should -Be $Network
        $parsed.Mask | Should -Be $Mask
    }
    It 'refuses <Cidr>: <Because>' -ForEach @(
        @{ Cidr = '10.87.1.5/24'; Because = '*its network is 10.87.1.0/24*' }
        @{ Cidr = '10.87.1.0/31'; Because = '*must be 8 to 30*' }
        @{ Cidr = '0.0.0.0/0'; Because = '*must be 8 to 30*' }
        @{ Cidr = '10.87.256.0/24'; Because = '*not an IPv4 address*' }
    ) {
        { ConvertTo-Subnet $Cidr } | Should -Throw $Because
    }
}

Describe 'What WSL says' {
    It 'is read through the NULs of UTF-16' {
        $nul = [string] [char] 0
        $raw = @(([string] [char] 0xFEFF + "D${nul}e${nul}b${nul}"), $nul, '')
        @(ConvertFrom-WslOutput $raw) | Should -Be @('Deb')
    }
    It 'names the default distribution by its star' {
        Select-DefaultDistro '  NAME      STATE           VERSION', '  Ubuntu    Stopped         2', '* Debian    Wird ausgefuehrt  2' | Should -Be 'Debian'
    }
    It 'is mirrored in either section of .wslconfig, NAT without one' {
        Select-NetworkingMode '[wsl2]', 'networkingMode=mirrored' | Should -Be 'mirrored'
        Select-NetworkingMode '[experimental]', ' networkingMode = Mirrored' | Should -Be 'mirrored'
        Select-NetworkingMode '[wsl2]', 'memory=4GB' | Should -Be 'nat'
        Select-NetworkingMode @() | Should -Be 'nat'
    }
    It 'gives advice where no route works, and none where one does' {
        Get-ModeAdvice 'nat' | Should -BeNullOrEmpty
        Get-ModeAdvice 'mirrored' | Should -BeLike '*networkingMode=nat*'
        Get-ModeAdvice 'wsl1' | Should -BeLike '*--set-version*'
    }
}

Describe 'Select-Interface' {
    It 'is the nearest network that holds the address' {
        $addresses = @(
            [pscustomobject] @{ IPAddress = '192.168.50.1'; PrefixLength = 24; InterfaceIndex = 4; InterfaceAlias = 'Ethernet' }
            [pscustomobject] @{ IPAddress = '172.16.0.9'; PrefixLength = 12; InterfaceIndex = 9; InterfaceAlias = 'VPN' }
            [pscustomobject] @{ IPAddress = '172.30.0.1'; PrefixLength = 20; InterfaceIndex = 23; InterfaceAlias = 'vEthernet (WSL)' }
        )
        (Select-Interface $addresses '172.30.0.77').InterfaceIndex | Should -Be 23
        Select-Interface $addresses '10.1.2.3' | Should -BeNullOrEmpty
    }
}

Describe 'A Windows with WSL' {
    BeforeEach {
        $script:routes = @()
        $script:said = @()
        $script:wsl = @{ Running = 'Debian'; Mode = 'nat'; Address = '172.30.0.2' }
        Mock Test-Administrator { $true }
        Mock Get-RouteTable { $script:routes }
        Mock Get-HostAddress { [pscustomobject] @{ IPAddress = '172.30.0.1'; PrefixLength = 20; InterfaceIndex = 23; InterfaceAlias = 'vEthernet (WSL)' } }
        Mock Invoke-Route {
            $script:said += $Command
            $verb, $network, $null, $mask, $gateway = $Command.Split(' ')[0..4]
            if ("$network/$mask" -ne '10.87.1.0/255.255.255.0') { throw "the fake route knows no $network/$mask" }
            if ($verb -eq 'ADD') {
                $script:routes += [pscustomobject] @{ NextHop = $gateway; InterfaceIndex = 23; InterfaceAlias = 'vEthernet (WSL)' }
            } else {
                $script:routes = @($script:routes | Where-Object { $_.NextHop -ne $gateway })
            }
            [pscustomobject] @{ ExitCode = 0; Lines = @(' OK!') }
        }
        Mock Invoke-Wsl {
            $lines = switch ($Arguments -join ' ') {
                '--list --quiet' { 'Ubuntu', 'Debian' }
                '--list --verbose' { '  NAME STATE VERSION', '  Ubuntu Stopped 2', '* Debian Running 2' }
                '--list --running --quiet' { $script:wsl.Running }
                '-d Debian --exec wslinfo --networking-mode' { $script:wsl.Mode }
                '-d Debian --exec ip -4 -o addr show' { '3: flatnet-br0    inet 10.87.1.1/24 scope global', "2: eth0    inet $($script:wsl.Address)/20 scope global" }
                '-d Debian --exec ip -4 route show default' { 'default via 172.30.0.1 dev eth0 proto kernel' }
                default { throw "the fake WSL does not know: $_" }
            }
            [pscustomobject] @{ ExitCode = 0; Lines = @($lines) }
        }
    }

    It 'gets the route, and the second time nothing is done' {
        $first = Sync-Route -Prefix '10.87.1.0/24'
        $first.ExitCode | Should -Be 0
        $first.Message | Should -BeLike 'set: 10.87.1.0/24 via 172.30.0.2 (Debian)*'
        $script:said = @()
        (Sync-Route -Prefix '10.87.1.0/24').Message | Should -BeLike 'right: *'
        $script:said | Should -BeNullOrEmpty
    }
    It 'follows WSL to a new address' {
        Sync-Route -Prefix '10.87.1.0/24' | Out-Null
        $script:wsl.Address = '172.30.0.77'
        (Sync-Route -Prefix '10.87.1.0/24').ExitCode | Should -Be 0
        @($script:routes).NextHop | Should -Be '172.30.0.77'
    }
    It 'is told what -Status finds, without a change or an administrator' {
        Mock Test-Administrator { $false }
        $answer = Sync-Route -Prefix '10.87.1.0/24' -ReportOnly
        $answer.ExitCode | Should -Be 4
        $answer.Message | Should -BeLike '*route ADD 10.87.1.0 MASK 255.255.255.0 172.30.0.2 METRIC 1 IF 23'
        Should -Invoke Invoke-Route -Times 0 -Exactly
    }
    It 'is not changed by -WhatIf' {
        (Sync-Route -Prefix '10.87.1.0/24' -WhatIf).Message | Should -BeLike 'would set *'
        Should -Invoke Invoke-Route -Times 0 -Exactly
    }
    It 'is not changed without an administrator, and says so' {
        Mock Test-Administrator { $false }
        $answer = Sync-Route -Prefix '10.87.1.0/24'
        $answer.ExitCode | Should -Be 1
        $answer.Message | Should -BeLike '*administrator*'
        Should -Invoke Invoke-Route -Times 0 -Exactly
    }
    It 'is not started by a look' {
        $script:wsl.Running = 'Ubuntu'
        (Sync-Route -Prefix '10.87.1.0/24').ExitCode | Should -Be 3
        Should -Invoke Invoke-Wsl -Times 0 -Exactly -ParameterFilter { $Arguments[0] -eq '-d' }
    }
    It 'is started by -KeepRunning' {
        $script:wsl.Running = 'Ubuntu'
        (Sync-Route -Prefix '10.87.1.0/24' -StartDistro).ExitCode | Should -Be 0
    }
    It 'gets advice and no route in mirrored mode' {
        $script:wsl.Mode = 'mirrored'
        (Sync-Route -Prefix '10.87.1.0/24').ExitCode | Should -Be 5
        Should -Invoke Invoke-Route -Times 0 -Exactly
    }
    It 'is told when its route does not hold' {
        Mock Invoke-Route { [pscustomobject] @{ ExitCode = 1; Lines = @('The route addition failed') } }
        $answer = Sync-Route -Prefix '10.87.1.0/24'
        $answer.ExitCode | Should -Be 1
        $answer.Message | Should -BeLike '*The route addition failed*'
    }
    It 'names the distributions when the wanted one is none of them' {
        { Sync-Route -Wanted 'Arch' -Prefix '10.87.1.0/24' } | Should -Throw '*Ubuntu, Debian*'
    }
    It 'is watched: a line for each change, and none while nothing changes' {
        $script:looks = 0
        Mock Wait-Change {
            $script:looks++
            if ($script:looks -eq 2) { $script:wsl.Address = '172.30.0.77' }
            if ($script:looks -eq 4) { throw 'enough' }
        }
        $log = Join-Path $TestDrive 'route.log'
        { Watch-Route '' '10.87.1.0/24' 60 $false $log } | Should -Throw 'enough'
        $lines = @(Get-Content -LiteralPath $log)
        $lines.Count | Should -Be 4
        $lines[0] | Should -BeLike '* set: *172.30.0.2 *'
        $lines[1] | Should -BeLike '* right: *172.30.0.2 *'
        $lines[2] | Should -BeLike '* set: *172.30.0.77 *'
        $lines[3] | Should -BeLike '* right: *172.30.0.77 *'
    }
    It 'is no longer watched when the script is gone' {
        Mock Test-Path { $false }
        Mock Wait-Change { throw 'not ended' }
        { Watch-Route '' '10.87.1.0/24' 60 $false '' } | Should -Not -Throw
        Should -Invoke Invoke-Wsl -Times 0 -Exactly
    }
    It 'is watched on after a failure' {
        $script:looks = 0
        Mock Get-RouteTable { if ($script:looks -eq 0) { throw 'no network' }; $script:routes }
        Mock Wait-Change { $script:looks++; if ($script:looks -eq 2) { throw 'enough' } }
        $log = Join-Path $TestDrive 'failure.log'
        { Watch-Route '' '10.87.1.0/24' 60 $false $log } | Should -Throw 'enough'
        $lines = @(Get-Content -LiteralPath $log)
        $lines[0] | Should -BeLike '*failed: no network'
        $lines[1] | Should -BeLike '*set: *'
    }
}

Describe 'The scheduled task' {
    It 'starts at logon, elevated, once at a time, with no end' {
        $xml = [xml] (Get-TaskXml 'PC\me & you' 'C:\p.exe' '-File "C:\a b.ps1"')
        $xml.Task.Triggers.LogonTrigger.UserId | Should -Be 'PC\me & you'
        $xml.Task.Triggers.LogonTrigger.Repetition.Interval | Should -Be 'PT1M'
        $xml.Task.Principals.Principal.RunLevel | Should -Be 'HighestAvailable'
        $xml.Task.Settings.MultipleInstancesPolicy | Should -Be 'IgnoreNew'
        $xml.Task.Settings.ExecutionTimeLimit | Should -Be 'PT0S'
        $xml.Task.Actions.Exec.Arguments | Should -Be '-File "C:\a b.ps1"'
    }
    # The real Task Scheduler, on a throw-away runner only: no WSL is needed to register the task.
    It 'is registered and removed for real' -Skip:(-not ($windows -and $env:CI)) {
        $folder = Join-Path $TestDrive 'flatnet'
        Mock Find-Distro { 'Debian' }
        Mock Get-InstallFolder { $folder }
        Mock Get-RouteTable { @() }
        Mock Start-ScheduledTask { $null }
        (Install-Task -Prefix '10.87.1.0/24' -Seconds 60).ExitCode | Should -Be 0
        (Install-Task -Prefix '10.87.1.0/24' -Seconds 60).ExitCode | Should -Be 0
        $action = (Get-ScheduledTask -TaskName 'flatnet route').Actions[0]
        $action.Execute | Should -BeLike '*\conhost.exe'
        $action.Arguments | Should -BeLike '*-Watch -Distro Debian -Subnet 10.87.1.0/24 -IntervalSeconds 60*'
        (Uninstall-Task -Prefix '10.87.1.0/24').ExitCode | Should -Be 0
        Get-ScheduledTask -TaskName 'flatnet route' -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
        Test-Path -LiteralPath $folder | Should -BeFalse
    }
}

Describe 'The command line' {
    It 'says no to <Arguments>' -ForEach @(
        @{ Arguments = @('-Subnet', '10.87.1.0'); Because = '*' }
        @{ Arguments = @('-HostId', '0'); Because = '*' }
        @{ Arguments = @('-Install', '-Status'); Because = '*' }
        @{ Arguments = @('-HostId', '2', '-Subnet', '10.87.2.0/24'); Because = '*one of them*' }
    ) {
        $engine = (Get-Process -Id $PID).Path
        $ErrorActionPreference = 'Continue'
        $said = & $engine -NoProfile -NonInteractive -ExecutionPolicy Bypass -File $shipped @Arguments 2>&1 | Out-String
        $LASTEXITCODE | Should -Be 1
        $said | Should -BeLike $Because
    }
}
