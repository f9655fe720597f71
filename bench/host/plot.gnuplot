# Draws what bench/host/run measured. It sets: picture (the output file), kind (svg or png), machine
# (a line of text), collectives (their names), and folder, where COLLECTIVE-RANKS.data has columns
#     bytes  Open_MPI/zerocta  MPICH/zerocta
if (kind eq "svg") {
    set terminal svg size 1100,900 font "DejaVu Sans,13" background "white"
} else {
    set terminal pngcairo size 1650,1350 font "DejaVu Sans,19" background "white"
}
set output picture

set style line 1 lc rgb "#0b61a4" lw 2 pt 7 ps 0.7
set style line 2 lc rgb "#d1571b" lw 2 pt 5 ps 0.7
set style line 3 lc rgb "#2f9e8f" lw 2 pt 9 ps 0.7
set style line 4 lc rgb "#7b4fa3" lw 2 pt 11 ps 0.7
set style line 5 lc rgb "#b8860b" lw 2 pt 13 ps 0.7
set style line 6 lc rgb "#c2185b" lw 2 pt 6 ps 0.7
set style line 7 lc rgb "#4b6b2f" lw 2 pt 4 ps 0.7
set style line 8 lc rgb "#5d6d7e" lw 2 pt 8 ps 0.7
set style line 9 lc rgb "#00838f" lw 2 pt 10 ps 0.7
set style line 10 lc rgb "#8d6e63" lw 2 pt 12 ps 0.7
set style line 20 lc rgb "#777777" lw 1.5
set style line 21 lc rgb "#e4e4e4" lw 1
set grid xtics ytics ls 21
set border 3 lc rgb "#555555"
set tics nomirror out scale 0.6

set logscale xy
set xrange [2**9.5:2**26.5]
set xtics ("1 KiB" 2**10, "16 KiB" 2**14, "256 KiB" 2**18, "4 MiB" 2**22, "64 MiB" 2**26)
set ytics ("1/32" 0.03125, "1/8" 0.125, "1/4" 0.25, "1/2" 0.5, "1" 1, "2" 2, "4" 4, "8" 8, "16" 16, "64" 64, \
           "256" 256, "1024" 1024)

set multiplot layout 2,2 margins 0.07,0.985,0.075,0.88 spacing 0.08,0.12 \
    title "Collectives among processes over shared memory, out of place: MPI's time / zerocta's\n{/*0.75 ".machine."; above 1 zerocta is faster}"
set xlabel "largest output or input of a rank" offset 0,0.2
set key top right Right samplen 2 spacing 1.05 font ",10" maxrows 5

do for [mpi = 1:2] {
    do for [ranks in "2 8"] {
        set title ranks." ranks: ".(mpi == 1 ? "Open MPI" : "MPICH")." / zerocta" offset 0,-0.5
        set yrange [0.02:(mpi == 1 ? 64 : 4096)]
        plot 1 with lines ls 20 notitle, \
             for [i = 1:words(collectives)] folder."/".word(collectives, i)."-".ranks.".data" \
                 using 1:(column(mpi + 1)) with linespoints ls i title word(collectives, i) noenhanced
    }
}
unset multiplot
