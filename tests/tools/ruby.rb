# Ruby's files: IO, FileUtils, Tempfile, PStore, Dir.
require 'fileutils'; require 'tempfile'; require 'digest'; require 'pstore'
n=ENV['N']; File.write("#{n}/a",(1..5000).map{|i|"line #{i}\n"}.join); puts File.size("#{n}/a"), File.foreach("#{n}/a").count
File.open("#{n}/a",'r+'){|f| f.seek(5); f.write('XYZ'); f.rewind; puts f.gets; f.truncate(20); f.rewind; puts f.read; f.flock(File::LOCK_EX); f.fsync}
File.open("#{n}/a",'a'){|f| f.puts 'more'}; puts IO.read("#{n}/a"); puts IO.binread("#{n}/a",5,3)
IO.copy_stream("#{n}/a","#{n}/b"); puts File.read("#{n}/b")==File.read("#{n}/a"); FileUtils.cp("#{n}/a","loc"); FileUtils.mv("loc","#{n}/c"); puts FileUtils.identical?("#{n}/a","#{n}/c")
FileUtils.mkdir_p("#{n}/d/e/f"); FileUtils.cp_r("#{n}/d","#{n}/d2"); puts Dir.children(n).sort.inspect, Dir.glob("#{n}/**/*").size; FileUtils.rm_rf("#{n}/d"); puts File.exist?("#{n}/d")
Tempfile.create('t',n){|t| t.write 'x'; t.flush; puts File.size(t.path)}; s=PStore.new("#{n}/ps"); s.transaction{s[:a]=[1,2]}; s.transaction(true){p s[:a]}
Dir.chdir(n){ puts Dir.pwd==n, File.stat('a').size, File.realpath('a').sub(n,'N'); File.rename('a','z'); File.utime(1,2,'z'); puts File.mtime('z').to_i; File.chmod(0600,'z'); puts File.stat('z').mode.to_s(8)}
puts Digest::MD5.file("#{n}/z").hexdigest; puts `cat #{n}/z`; begin; File.open("#{n}/none"); rescue => e; puts e.class; end; File.delete("#{n}/z"); puts IO.popen(['wc','-c'],'r+'){|io| io.write('abc'); io.close_write; io.read.to_i}
